// What all pages share. Whatever comes from elsewhere is set as text, never as HTML.

export function element(tag, content = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

export function table(label, head, rows, nText = 1) {
  const cells = (row, tag) =>
    element("tr", row.map((cell, k) => element(tag, cell ?? "–", { className: k < nText ? "text" : "", ...(tag === "th" ? { scope: "col" } : {}) })));
  const made = element("div", element("table", [element("thead", cells(head, "th")), element("tbody", rows.map((row) => cells(row, "td")))]), { className: "scroll", tabIndex: 0 });
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", label);
  return made;
}

export function verdict(accepted, heading, sentence) {
  return element("p", [element("strong", heading), `: ${sentence}`], { className: `verdict ${accepted ? "accept" : "escalate"}` });
}

export const list = (words) => element("ul", words.map((each) => element("li", each)));

// Of a JSON body, with what came of it; a service that is gone is a problem like any other.
export async function send(method, path, content, headers = {}) {
  try {
    const body = content === undefined ? undefined : JSON.stringify(content);
    const kind = body === undefined ? {} : { "Content-Type": "application/json" };
    const response = await fetch(path, { method, body, headers: { ...kind, ...headers } });
    const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
    return { ok: response.ok, status: response.status, headers: response.headers, content: isJson ? await response.json() : await response.text() };
  } catch (error) {
    return { ok: false, status: 0, headers: new Headers(), content: { detail: `the service cannot be reached (${error.message})` } };
  }
}

// Of a form with files; `tell` hears which part of it is sent.
export function sendForm(path, form, tell) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of what was sent
    request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / event.total);
    request.onload = () => {
      let content = { detail: request.responseText };
      try {
        content = JSON.parse(request.responseText);
      } catch {
        // a proxy that answers in its own words
      }
      resolve({ ok: request.status >= 200 && request.status < 300, status: request.status, content });
    };
    request.onerror = () => resolve({ ok: false, status: 0, content: { detail: "the service cannot be reached, or ended the transfer" } });
    request.open("POST", path);
    request.send(form);
  });
}

async function states() {
  const { content } = await send("GET", "/ready");
  for (const cell of document.querySelectorAll("[data-state]")) {
    const state = content.models?.[cell.dataset.state];
    if (state) cell.textContent = state.ready ? "ready" : state.reason;
    else if (!content.models) cell.textContent = "cannot be reached";
  }
}
setInterval(states, 5000);

// Events of a job, one call for each; a stream that breaks goes on after the last event that came.
export async function follow(path, tell) {
  let last = "";
  for (let ended = false; !ended; await new Promise((resolve) => setTimeout(resolve, ended ? 0 : 1000))) {
    try {
      const response = await fetch(path, { headers: last ? { "Last-Event-ID": last } : {} });
      if (!response.ok) return;
      let text = "";
      for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
        const blocks = (text + part).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const said = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
          if (!said.event) continue;
          last = said.id;
          tell(said.event, JSON.parse(said.data));
          ended ||= said.event === "end";
        }
      }
    } catch {
      // the service is started again
    }
  }
}
