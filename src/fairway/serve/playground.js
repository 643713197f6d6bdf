// Asks the server what each piece of the text costs, and paints it behind the text.
const find = (id) => document.getElementById(id);
const [text, colours, numbers, problem, here] =
  ["text", "colours", "numbers", "problem", "here"].map(find);
const WAIT = 120; // milliseconds without a key before the model is asked
const MOST_ROWS = 300; // of the table
let token = sessionStorage.getItem("fairway-token") ?? "";
let model = null;
let painted = { text: "", spans: [] }; // what the model has said last, of which text
let timer = 0;
let asking = null; // what stops the question that is on its way
let writing = null;

async function ask(path, body, signal) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers["Authorization"] = `Bearer ${token}`;
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    body: body === undefined ? undefined : JSON.stringify(body),
    headers, signal,
  });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  if (answer.status === 401) find("access").hidden = false;
  throw new Error(said?.error?.message ?? `the server answered ${answer.status}`);
}

// What went right takes back what the same had complained of, and no more.
function complain(error, about) {
  if (error?.name === "AbortError" || (!error && problem.dataset.about !== about)) return;
  problem.dataset.about = about;
  problem.textContent = error ? String(error.message ?? error) : "";
  problem.hidden = !error;
}

const level = (span) => Math.min(8, Math.round(span.bits / Math.max(span.bytes, 1)));
const shown = (piece) => piece.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
const bits = (number) => number.toFixed(2);
const percent = (log) => `${(100 * Math.exp(log)).toFixed(1)} %`;
const expected = (span) =>
  span.likely.map(([piece, log]) => `“${shown(piece)}” ${percent(log)}`).join(", ");

// The colours of what is still the same; the rest waits for its own.
function paint() {
  const typed = text.value;
  const parts = [];
  let at = 0;
  for (const span of painted.spans) {
    if (!typed.startsWith(span.text, at)) break;
    const part = document.createElement("span");
    part.className = `l${level(span)}`;
    part.textContent = span.text;
    parts.push(part);
    at += span.text.length;
  }
  colours.replaceChildren(...parts, `${typed.slice(at)}\u200b`);
}

function tell() {
  const said = painted.said;
  if (!said || said.bits_per_byte === null) {
    numbers.textContent = "Nothing typed yet.";
    return;
  }
  numbers.textContent =
    `${said.bits_per_byte.toFixed(3)} bits per byte: ${Math.round(said.bits)} bits, ` +
    `${said.bytes} bytes, ${said.tokens} tokens` +
    (said.exact ? "" : ". Its tokenizer changes this text, which is therefore not coloured");
}

function list() {
  const rows = painted.spans.slice(0, MOST_ROWS).map((span) => {
    const row = document.createElement("tr");
    for (const cell of [shown(span.text), bits(span.bits), span.bytes, expected(span)]) {
      row.insertCell().textContent = cell;
    }
    return row;
  });
  find("tokens").replaceChildren(...rows);
  const all = painted.spans.length;
  find("shown").textContent = !all ? "No tokens yet."
    : all > MOST_ROWS ? `The first ${MOST_ROWS} of ${all}.` : `All ${all}.`;
}

function look() {
  const place = text.selectionStart;
  let at = 0;
  for (const span of painted.text === text.value ? painted.spans : []) {
    at += span.text.length;
    if (at >= place && span.text) {
      here.textContent =
        `At the cursor: “${shown(span.text)}”, ${bits(span.bits)} bits. Expected most: ${expected(span)}.`;
      return;
    }
  }
}

async function score() {
  asking?.abort();
  const mine = asking = new AbortController();
  const asked = text.value;
  try {
    const said = await (await ask("/score", { text: asked }, mine.signal)).json();
    painted = { text: asked, spans: said.exact ? said.spans : [], said };
    complain(null, "score");
    paint();
    tell();
    list();
    look();
  } catch (error) {
    complain(error, "score");
  }
}

function changed() {
  paint();
  clearTimeout(timer);
  timer = setTimeout(score, WAIT);
}

function settings() {
  const number = (id) => Number(find(id).value);
  const asked = {
    model, prompt: text.value, stream: true, max_tokens: number("max_tokens"),
    temperature: number("temperature"), top_p: number("top_p"),
  };
  return find("seed").value === "" ? asked : { ...asked, seed: number("seed") };
}

async function* events(answer) {
  let rest = "";
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + part).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function write(event) {
  event.preventDefault();
  writing = new AbortController();
  find("go").disabled = text.readOnly = true;
  find("stop").disabled = false;
  try {
    const answer = await ask("/v1/completions", settings(), writing.signal);
    for await (const piece of events(answer)) {
      if (piece.error) throw new Error(piece.error.message);
      text.value += piece.choices[0]?.text ?? "";
      changed();
    }
    complain(null, "write");
  } catch (error) {
    complain(error, "write");
  }
  find("go").disabled = text.readOnly = false;
  find("stop").disabled = true;
  if (document.activeElement === document.body) find("go").focus();
}

async function open() {
  try {
    const { data } = await (await ask("/v1/models")).json();
    model = data[0].id;
    find("model").textContent = model;
    complain(null, "open");
    changed();
  } catch (error) {
    complain(error, "open");
  }
}

text.addEventListener("input", changed);
document.addEventListener("selectionchange", look);
find("write").addEventListener("submit", write);
find("stop").addEventListener("click", () => writing?.abort());
find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value;
  sessionStorage.setItem("fairway-token", token);
  find("access").hidden = true;
  open();
});
open();
