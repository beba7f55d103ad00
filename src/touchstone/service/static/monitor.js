// Numbers of the service, from what a monitoring system reads, and the table of runs.

import { element, send, table, verdict } from "./common.js";

const PERIOD = 2; // s
const OUTCOMES = ["accept", "escalate", "refused", "failed", "unavailable"];

// The text format of Prometheus: [name, labels, value] of each sample.
function samples(text) {
  return text.split("\n").filter((line) => line && !line.startsWith("#")).map((line) => {
    const [, name, labels, number] = line.match(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/);
    return [name, Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((each) => [each[1], each[2]])), Number(number)];
  });
}

// Where a share of the questions had been answered, within the bucket by linear interpolation.
function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let [low, below] = [0, 0];
  for (const [high, count] of buckets) {
    if (count >= share * total) return Number.isFinite(high) ? low + ((high - low) * (share * total - below)) / (count - below || 1) : low;
    [low, below] = [high, count];
  }
}

const seconds = (x) => (x === null ? "–" : x < 1 ? `${Math.round(1000 * x)} ms` : `${x.toPrecision(3)} s`);
const total = (found) => found.reduce((sum, each) => sum + each[2], 0);
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(0)} %` : "–");

function tile(value, name) {
  return element("li", [element("b", value), element("span", name)]);
}

let before = null;

async function refresh() {
  const [metrics, ready] = await Promise.all([send("GET", "/metrics"), send("GET", "/ready")]);
  const tiles = document.getElementById("tiles");
  const models = document.getElementById("models");
  if (!ready.content.models || typeof metrics.content !== "string") {
    tiles.replaceChildren();
    return models.replaceChildren(verdict(false, "NOT REACHED", "the service does not answer"));
  }
  const found = samples(metrics.content);
  const of = (name, model, more = {}) => found.filter(([each, labels]) => each === `touchstone_${name}` && (model === undefined || labels.model === model) && Object.entries(more).every(([key, wanted]) => labels[key] === wanted));
  const buckets = (model) => of("inference_latency_seconds_bucket", model).map(([, labels, count]) => [labels.le === "+Inf" ? Infinity : Number(labels.le), count]);
  const answered = total(of("inference_latency_seconds_count"));
  const now = performance.now() / 1000;
  const rate = before ? ((answered - before.answered) / (now - before.now)).toFixed(1) : "–";
  before = { answered, now };
  const names = Object.keys(ready.content.models);
  tiles.replaceChildren(
    tile(ready.content.ready ? "ready" : "not ready", "system"),
    tile(`${names.filter((name) => ready.content.models[name].ready).length} of ${names.length}`, "models that answer"),
    tile(String(answered), "questions answered"),
    tile(rate, "questions each second, now"),
    tile(String(total(of("queue_length"))), "questions in the queue"),
    tile(String(total(of("worker_restarts_total"))), "workers that died"),
  );
  const rows = names.map((name) => {
    const state = ready.content.models[name];
    const verdicts = OUTCOMES.map((verdict) => total(of("verdicts_total", name, { verdict })));
    const all = verdicts.reduce((a, b) => a + b, 0);
    return [name, state.ready ? "ready" : state.reason, String(state.workers.length), String(all), seconds(quantile(buckets(name), 0.5)), seconds(quantile(buckets(name), 0.95)), ...verdicts.map((each) => percent(each, all))];
  });
  const head = ["model", "state", "workers", "questions", "median", "95 % within", "accepted", "escalated", "refused", "failed", "no artefact"];
  // Replaced in place, so that a reader who has scrolled the table stays there.
  const made = table("Models", head, rows, 2);
  const old = models.querySelector("table");
  if (old) old.replaceWith(made.firstChild);
  else models.replaceChildren(made);
  document.getElementById("asked").textContent = `Last asked at ${new Date().toLocaleTimeString()}.`;
}

async function runs() {
  const place = document.getElementById("runs");
  const { ok, content } = await send("GET", "/runs");
  if (!ok) return place.replaceChildren(verdict(false, "NOT FETCHED", content.detail));
  if (!content.runs.length) return place.replaceChildren(element("p", "Nothing was run here yet."));
  const share = (row, name) => (row[name] === null ? "–" : `${row[name].toFixed(3)} [${row[`${name}_low`].toFixed(3)}, ${row[`${name}_high`].toFixed(3)}], n ${row[`${name}_n`]}`);
  const rows = content.runs.map((row) => [row.model_id, row.run && element("a", row.run, { href: `/run?name=${encodeURIComponent(row.run)}` }), row.date?.slice(0, 16).replace("T", " "), String(row.seed ?? "–"), String(row.n_rows ?? "–"),
    row.coverage_90 === null ? "–" : `${row.coverage_90.toFixed(3)}, n ${row.coverage_90_n}`, ...["false_alarms", "recall", "wrong"].map((name) => share(row, name))]);
  const head = ["model", "run", "date (UTC)", "seed", "rows learnt from", "truths in 90 % intervals", "false alarms [95 %]", "mismatches escalated [95 %]", "wrong among accepted [95 %]"];
  place.replaceChildren(table("Runs", head, rows, 3), element("p", [element("a", "All columns as CSV", { href: "/runs.csv" }), "."], { className: "help" }));
}

refresh();
runs();
setInterval(refresh, 1000 * PERIOD);
