"use strict";
// Sends the forms of the page and shows answers. Whatever comes from elsewhere is set as text, never as HTML.

const ask = document.getElementById("ask");
const place = document.getElementById("answer");

function element(tag, content = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

function number(value) {
  if (typeof value !== "number") return value === null ? "–" : String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(3);
}

function table(title, head, rows) {
  const cells = (row, tag) =>
    element("tr", row.map((cell, k) => element(tag, cell, { className: k === 0 ? "text" : "" })));
  return [
    element("h3", title),
    element("table", [
      element("thead", cells(head, "th")),
      element("tbody", rows.map((row) => cells(row, "td"))),
    ]),
  ];
}

function verdict(decision, sentence) {
  return element("p", [element("strong", decision.toUpperCase()), `: ${sentence}`], {
    className: `verdict ${decision === "accept" ? "accept" : "escalate"}`,
  });
}

function list(title, words) {
  return words.length ? [element("h3", title), element("ul", words.map((each) => element("li", each)))] : [];
}

const withUnit = (name, unit) => (unit ? `${name} (${unit})` : name);

function prediction(report) {
  const rows = (entries, label) =>
    entries.map((each) => [label(each), number(each.median), `${number(each.low)} to ${number(each.high)}`]);
  const shown = [
    verdict(report.verdict, report.reason),
    ...table("Answer", ["", "median", "90 % interval"],
      rows(report.estimates, (each) => withUnit(`${each.name}, ${each.meaning}`, each.unit))),
  ];
  if (report.probabilities.length)
    shown.push(...table("Probabilities", ["", ""], report.probabilities.map((each) => [each.name, number(each.value)])));
  if (report.attribution.length)
    shown.push(...table("What each value adds to the mean of the training", ["", "median", "90 % interval"],
      rows(report.attribution, (each) => withUnit(each.name, each.unit))));
  const assumed = Object.entries(report.assumed);
  if (assumed.length)
    shown.push(...table("Assumed, since it was not given", ["", ""], assumed.map(([name, value]) => [name, number(value)])));
  return shown;
}

function inference(report) {
  const name = (each) => withUnit(each.quantity + (each.record ? `, record ${each.record}` : ""), each.unit);
  return [
    verdict(report.computation.verdict, `the computation, because ${report.computation.reason}`),
    verdict(report.verdict, `the model for this record, because ${report.reason}`),
    ...list("It would be explained better by", report.alternatives.map((each) => each.cause)),
    ...list("Cautions", report.cautions),
    ...table("The posterior", ["", "median", "90 % interval", "prior 90 %", ""],
      report.posterior.map((each) => [name(each), number(each.median),
        each.interval_90.map(number).join(" to "), each.prior_interval_90.map(number).join(" to "), each.remark])),
    ...list("What was read and assumed", report.notes),
  ];
}

function show(...content) {
  place.replaceChildren(element("h2", "Answer"), ...content);
}

function report(content) {
  const text = JSON.stringify(content, null, 2);
  const link = element("a", "the report as JSON", {
    href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
    download: `${content.model_id}_${content.kind}.json`,
  });
  const source = content.artefact ?? content.lineage.artefact.source;
  const lineage = element("p", [`Artefact: ${source}; seed ${content.lineage.seed}. Keep `, link, "."], { className: "help" });
  show(...(content.kind === "prediction" ? prediction(content) : inference(content)), lineage);
}

function problem(content) {
  const unplaced = [];
  for (const each of content.problems ?? []) {
    const [key, ...rest] = each.replace(/^inputs\./, "").split(": ");
    const wrong = document.getElementById(`wrong-${key}`);
    if (!wrong) { unplaced.push(each); continue; }
    wrong.textContent = rest.join(": ");
    wrong.hidden = false;
    document.getElementById(`field-${key}`).setAttribute("aria-invalid", "true");
  }
  const first = document.querySelector("[aria-invalid=true]");
  show(verdict("not answered", first ? "values of the form are not allowed; see there" : content.detail), ...list("", unplaced));
  first?.focus();
}

async function finished(where) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const content = await (await fetch(where)).json();
    if (content.status === "done") return report(content.report);
    if (content.status !== "waiting") return problem(content);
  }
}

async function send(question, form) {
  const button = form.querySelector("button");
  for (const each of document.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  for (const each of document.querySelectorAll(".wrong")) each.hidden = true;
  button.disabled = true;
  show(element("p", "The model is at work."));
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model_id: ask.dataset.model, ...question }),
    });
    const content = await response.json();
    if (response.status === 202) {
      show(element("p", `This takes longer; it is job ${content.job}, and its answer will appear here.`));
      await finished(content.where);
    } else if (response.ok) report(content);
    else problem(content);
    if (!document.querySelector("[aria-invalid=true]")) place.focus();
  } catch (error) {
    show(verdict("not answered", `the service cannot be reached (${error.message})`));
  } finally {
    button.disabled = false;
  }
}

function value(field) {
  if (field.type === "checkbox") return field.checked;
  const text = field.value.trim();
  if (text === "") return null;
  // What is no number goes as text, so that the service says what is wrong with it.
  const isNumber = ["integer", "float"].includes(field.dataset.type) && Number.isFinite(Number(text));
  return isNumber ? Number(text) : text;
}

document.getElementById("form")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = [...event.target.querySelectorAll("[data-type]")];
  send({ inputs: Object.fromEntries(fields.map((field) => [field.name, value(field)])) }, event.target);
});

const recordForm = document.getElementById("record");
recordForm?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [data, meta] = ["data", "meta"].map((id) => document.getElementById(id).files[0]);
  if (!data) return show(verdict("not answered", "choose a record first"));
  const text = async (file) => (file ? await file.text() : "");
  const name = data.name.replace(/[^A-Za-z0-9_.+-]/g, "_");
  send({ record: { name, data: await text(data), meta: await text(meta) } }, event.target);
});

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (!recordForm) return;
  for (const file of event.dataTransfer.files) {
    const chosen = new DataTransfer();
    chosen.items.add(file);
    document.getElementById(/\.ya?ml$/i.test(file.name) ? "meta" : "data").files = chosen.files;
  }
  document.getElementById("data").focus();
});

async function states() {
  try {
    const { models } = await (await fetch("/ready")).json();
    for (const [model, state] of Object.entries(models)) {
      const cell = document.querySelector(`[data-state="${model}"]`);
      if (cell) cell.textContent = state.ready ? "ready" : state.reason;
    }
  } catch {
    for (const cell of document.querySelectorAll("[data-state]")) cell.textContent = "the service cannot be reached";
  }
}
setInterval(states, 5000);
