// Moves a version to another stage, and trains the model while its progress is watched.

import { element, follow, list, send, sendForm, table, verdict } from "./common.js";

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

// What was moved or added is said once the page shows its tables anew.
for (const [key, heading, place] of [["moved", "MOVED", "promoted"], ["added", "ADDED", "sent"]]) {
  const said = sessionStorage.getItem(key);
  if (!said || !at(place)) continue;
  sessionStorage.removeItem(key);
  at(place).replaceChildren(verdict(true, heading, said));
  at(place).scrollIntoView({ block: "center" });
}

// What an upload lacks is said before anything is sent; whether it is right, the service says.
async function lacking(files) {
  const names = files.map((file) => file.name);
  const manifest = files.find((file) => file.name === "manifest.json");
  if (!manifest) return ["choose all files of the folder; manifest.json is not among them"];
  try {
    const listed = Object.keys(JSON.parse(await manifest.text()).files);
    const absent = listed.filter((name) => !names.includes(name)).map((name) => `${name}: the manifest lists it, and it was not chosen`);
    const extra = names.filter((name) => name !== "manifest.json" && !listed.includes(name)).map((name) => `${name}: the manifest does not list it`);
    return [...absent, ...extra];
  } catch {
    return ["manifest.json: is no manifest of an artefact"];
  }
}

at("upload").addEventListener("submit", async (event) => {
  event.preventDefault();
  const files = [...at("files").files];
  const [place, bar, button] = [at("sent"), at("sending"), event.target.querySelector("button")];
  const refused = (detail, problems = []) => place.replaceChildren(verdict(false, "REFUSED", detail), list(problems));
  place.replaceChildren();
  const problems = await lacking(files);
  if (problems.length) return refused("These files are no whole artefact.", problems);
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  for (const name of ["why", "by"]) if (value(`added-${name}`)) form.append(name, value(`added-${name}`));
  button.disabled = true;
  bar.hidden = false;
  bar.value = 0;
  const { ok, content } = await sendForm(`/models/${model}/versions`, form, (part) => {
    if (part < 1) bar.value = 100 * part;
    else bar.removeAttribute("value");
    const said = part < 1 ? `${Math.floor(100 * part)} % is sent.` : "All is sent: the service checks the hashes, loads the artefact and hears it answer.";
    if (place.textContent !== said) place.replaceChildren(element("p", said));
  });
  button.disabled = false;
  bar.hidden = true;
  if (!ok) return refused(content.detail, content.problems);
  sessionStorage.setItem("added", `Version ${content.version} is kept, with the digest ${content.digest}.`);
  location.reload();
});

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
