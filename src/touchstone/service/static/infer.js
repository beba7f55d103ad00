// Sends the forms of the page and shows answers, which the service renders as the notebook's page does.

import { element, list, send, verdict } from "./common.js";

const model = document.getElementById("ask").dataset.model;
const place = document.getElementById("answer");
const forms = { values: document.getElementById("form"), record: document.getElementById("record") };

const show = (...content) => place.replaceChildren(element("h2", "Answer"), ...content);

async function report(content) {
  const rendered = await send("POST", "/answer", content);
  if (!rendered.ok) return show(verdict(false, "NOT SHOWN", rendered.content.detail));
  place.innerHTML = rendered.content; // of this service, which escapes what it was asked
  const text = JSON.stringify(content, null, 2);
  const link = element("a", "the report as JSON", {
    href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
    download: `${content.model_id}_${content.kind}.json`,
  });
  place.append(element("p", ["Keep ", link, "."], { className: "help" }));
}

function mark(id, text) {
  const wrong = document.getElementById(`wrong-${id}`);
  const field = document.getElementById(`field-${id}`) ?? document.getElementById(id);
  wrong.textContent = wrong.hidden ? text : `${wrong.textContent}\n${text}`;
  wrong.hidden = false;
  field?.setAttribute("aria-invalid", "true");
}

// A problem that begins with the name of a field stands there, one between fields too; any other at the end.
function problem(content, form) {
  const names = new Set([...form.querySelectorAll("[data-type]")].map((field) => field.name));
  const unplaced = [];
  const said = (content.detail ?? "the service gave no reason").replace(`${model}: `, "");
  for (const each of content.problems?.length ? content.problems : said.split(/; (?=\w+: )/)) {
    const [key, ...rest] = each.replace(/^inputs\./, "").split(": ");
    if (names.has(key) && rest.length) mark(key, rest.join(": "));
    else unplaced.push(each);
  }
  const placed = document.querySelector("[aria-invalid=true]");
  const where = form === forms.record ? "data" : "form";
  for (const each of unplaced) mark(where, each);
  show(verdict(false, "NOT ANSWERED", placed ? "values of the form are not allowed; each says why" : said),
    ...(placed && unplaced.length ? [list(unplaced)] : []));
  (document.querySelector("[aria-invalid=true]") ?? place).focus();
}

async function finished(where) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const { content } = await send("GET", where);
    if (content.status === "waiting" || content.status === "running") continue;
    return content;
  }
}

async function ask(question, form) {
  const button = form.querySelector("button");
  for (const each of document.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  for (const each of document.querySelectorAll(".wrong")) each.hidden = true;
  button.disabled = true;
  show(element("p", "The model is at work."));
  const answer = await send("POST", "/predict", { model_id: model, ...question });
  button.disabled = false;
  if (answer.status === 202) {
    show(element("p", `This takes longer; it is job ${answer.content.job}, and its answer will appear here.`));
    const job = await finished(answer.content.where);
    if (job.report) await report(job.report);
    else return problem(job, form);
  } else if (answer.ok) await report(answer.content);
  else return problem(answer.content, form);
  place.focus();
}

function value(field) {
  if (field.type === "checkbox") return field.checked;
  const text = field.value.trim();
  if (text === "") return null;
  // What is no number goes as text, so that the service says what is wrong with it.
  const isNumber = ["integer", "float"].includes(field.dataset.type) && Number.isFinite(Number(text));
  return isNumber ? Number(text) : text;
}

forms.values?.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = [...event.target.querySelectorAll("[data-type]")].map((field) => [field.name, value(field)]);
  ask({ inputs: Object.fromEntries(given.filter(([, content]) => content !== null)) }, event.target);
});

// Of a file as it is, in base64: text would lose its ends of lines and what is not UTF-8.
async function bytes(file) {
  const reader = new FileReader();
  const read = new Promise((resolve, reject) => Object.assign(reader, { onload: resolve, onerror: reject }));
  reader.readAsDataURL(file);
  await read;
  return reader.result.slice(reader.result.indexOf(",") + 1);
}

forms.record?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [data, meta] = ["data", "meta"].map((id) => document.getElementById(id).files[0]);
  if (!data) return problem({ detail: "choose a record first" }, event.target);
  const name = data.name.replace(/[^A-Za-z0-9_.+-]/g, "_");
  const record = { name, data: await bytes(data), meta: meta ? await bytes(meta) : null, encoding: "base64" };
  ask({ record }, event.target);
});

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (!forms.record) return;
  for (const file of event.dataTransfer.files) {
    const chosen = new DataTransfer();
    chosen.items.add(file);
    document.getElementById(/\.ya?ml$/i.test(file.name) ? "meta" : "data").files = chosen.files;
  }
  forms.record.querySelector("button").focus();
});
