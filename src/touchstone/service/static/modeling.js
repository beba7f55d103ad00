// Moves a version to another stage, and trains the model while its progress is watched.

import { element, list, send, verdict } from "./common.js";

const model = document.getElementById("model").dataset.model;
const value = (id) => document.getElementById(id).value.trim();

document.getElementById("promote")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = document.getElementById("promoted");
  const [version, stage] = [value("version"), value("stage")];
  place.replaceChildren(element("p", "The version is checked: its files, its answer of before, its certificate."));
  const body = { stage, by: value("by"), why: value("why") };
  const { ok, content } = await send("POST", `/models/${model}/versions/${version}/stage`, body);
  if (ok) return location.reload();
  place.replaceChildren(verdict(false, "REFUSED", content.detail), ...(content.problems?.length ? [list(content.problems)] : []));
});
