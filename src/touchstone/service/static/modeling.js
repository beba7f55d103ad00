// Moves a version to another stage, and trains the model while its progress is watched.

import { element, follow, list, send, table, verdict } from "./common.js";

const model = document.getElementById("model").dataset.model;
const at = (id) => document.getElementById(id);
const value = (id) => at(id).value.trim();

at("promote")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = at("promoted");
  const button = event.target.querySelector("button");
  const where = `/models/${model}/versions/${value("version")}`;
  button.disabled = true;
  place.replaceChildren(element("p", "The version is checked: its files, its answer of before, its certificate."));
  const known = await send("GET", where);
  const match = known.headers.get("ETag");
  const { ok, content } = await send("POST", `${where}/stage`, { stage: value("stage"), why: value("why"), by: value("by") }, match ? { "If-Match": match } : {});
  button.disabled = false;
  if (!ok) return place.replaceChildren(verdict(false, "REFUSED", content.detail), list(content.problems ?? []));
  sessionStorage.setItem("moved", `Version ${content.version} is at ${content.stage} now.`);
  location.reload();
});

// What was moved is said once the page shows its table anew.
const moved = sessionStorage.getItem("moved");
if (moved && at("promoted")) {
  sessionStorage.removeItem("moved");
  at("promoted").replaceChildren(verdict(true, "MOVED", moved));
  at("promoted").scrollIntoView({ block: "center" });
}

const STATUS = {
  waiting: "It waits for another training to end.",
  running: "It is running.",
  done: "It is done.",
  failed: "It failed.",
  cancelled: "It was cancelled.",
};

function watch(job) {
  at("watched").hidden = false;
  at("job").textContent = `Training ${job.slice(0, 8)}`;
  at("status").textContent = STATUS.waiting;
  at("log").textContent = at("said").textContent = "";
  at("bar").removeAttribute("value");
  at("bar").hidden = at("cancel").hidden = false;
  at("cancel").disabled = false;
  at("cancel").onclick = async () => {
    at("cancel").disabled = true;
    const { ok, content } = await send("DELETE", `/jobs/${job}`);
    if (!ok) at("said").textContent = content.detail;
  };
  follow(`/jobs/${job}/events`, (name, content) => {
    if (name === "start") at("status").textContent = content.attempt > 1 ? `It was started again (attempt ${content.attempt}).` : STATUS.running;
    if (name === "progress") {
      at("said").textContent = `${content.stage}: ${content.text}`;
      if (content.percent === null) at("bar").removeAttribute("value");
      else at("bar").value = content.percent;
    }
    if (name === "line") {
      at("log").append(`${[content.label, content.text].filter(Boolean).join("  ")}\n`);
      at("log").scrollTop = at("log").scrollHeight;
    }
    if (name === "end") ended(job, content.status);
  });
}

async function ended(job, status) {
  at("status").textContent = STATUS[status] ?? status;
  at("bar").hidden = at("cancel").hidden = true;
  const { content } = await send("GET", `/jobs/${job}`);
  at("said").textContent = status === "failed" ? content.detail : content.result?.version ? `It made version ${content.result.version}.` : "";
  trainings();
}

async function trainings(watching = () => {}) {
  const { ok, content } = await send("GET", "/jobs");
  if (!ok) return;
  const found = content.jobs.filter((each) => each.kind === "train" && each.model_id === model);
  const open = found.find((each) => ["waiting", "running"].includes(each.status));
  if (open) watching(open.job);
  const date = (seconds) => (seconds ? new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ") : "–");
  const rows = found.map((each) => [each.job.slice(0, 8), each.status, date(each.created), date(each.finished)]);
  at("trainings").replaceChildren(...(rows.length ? [element("h3", "Trainings so far"), table("Trainings so far", ["training", "status", "asked for (UTC)", "ended (UTC)"], rows, 4)] : []));
}

at("training").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = [...event.target.querySelectorAll("[data-type]")].filter((field) => field.value.trim() !== field.dataset.default && field.value.trim() !== "");
  const number = (field) => (field.dataset.type !== "string" && Number.isFinite(Number(field.value)) ? Number(field.value) : field.value.trim());
  const settings = Object.fromEntries(fields.map((field) => [field.name, number(field)]));
  const { ok, content } = await send("POST", "/jobs", { kind: "train", model_id: model, settings, until: value("until") });
  if (ok) return watch(content.job);
  at("trainings").replaceChildren(verdict(false, "NOT STARTED", content.detail), list(content.problems ?? []));
});

trainings(watch);
