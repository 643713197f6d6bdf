// The text that was scored, coloured: one piece at a time, from the data in the page.
"use strict";
(() => {
  const VIEWS = {
    learning: (frozen, bits) => bits,
    frozen: (frozen, bits) => frozen,
    difference: (frozen, bits) => bits - frozen,
  };
  const SAVED = [0.25, 1, 3]; // bits that learning saved or cost: classes s1 .. s3 and d1 .. d3

  async function inflate(base64) {
    const packed = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function unpacked(held, all) {
    const total = (column) => held.pieces.reduce((sum, piece) => sum + piece[column], 0);
    const bytes = total(2), tokens = total(3);
    const sizes = new DataView(all.buffer, bytes, 2 * tokens);
    const bitsAt = (place) => (all[place] / held.finest) ** 2;
    let byte = 0, token = 0;
    return held.pieces.map(([document, firstByte, numBytes, numTokens, perByte]) => {
      const piece = { document, firstByte, numBytes, perByte, tokens: [] };
      const decoder = new TextDecoder();
      let waiting = null;
      for (let end = token + numTokens; token < end; token++) {
        const size = sizes.getUint16(2 * token, true);
        const last = token + 1 === end;
        const words = decoder.decode(all.subarray(byte, byte + size), { stream: !last });
        byte += size;
        const frozen = bitsAt(bytes + 2 * tokens + token);
        const bits = bitsAt(bytes + 3 * tokens + token);
        if (waiting) { // bytes of a character that this token ends
          waiting.words += words; waiting.frozen += frozen; waiting.bits += bits;
        } else {
          waiting = { words, frozen, bits, };
        }
        piece.tokens.push(waiting);
        if (waiting.words) waiting = null;
      }
      return piece;
    });
  }

  function classOf(view, value, steps) {
    if (view !== "difference") return "c" + steps.filter((step) => step <= value).length;
    const size = SAVED.filter((step) => step <= Math.abs(value)).length;
    return size === 0 ? "c0" : (value < 0 ? "s" : "d") + size;
  }

  const shown = (words) => JSON.stringify(words).slice(1, -1);

  async function start(section) {
    const held = JSON.parse(section.querySelector("script").textContent);
    const pieces = unpacked(held, await inflate(held.data));
    const find = (name) => section.querySelector("." + name);
    const select = find("piece"), text = find("words"), said = find("said"), strip = find("strip");
    let view = "learning", place = 0, spans = [], marked = null;

    pieces.forEach((piece, i) => {
      const rest = piece.firstByte ? `, from byte ${piece.firstByte.toLocaleString("en")}` : "";
      const words = `document ${piece.document + 1}${rest}: ${piece.perByte} bits per byte, ` +
        `${piece.numBytes.toLocaleString("en")} bytes`;
      select.add(new Option(words, String(i)));
      const part = document.createElement("i");
      part.style.flexGrow = String(piece.numBytes);
      const tokenBits = piece.perByte * 3; // as a token of three bytes would be coloured
      part.className = classOf("learning", tokenBits, held.steps);
      part.title = words;
      part.addEventListener("click", () => show(i));
      strip.append(part);
    });

    function show(i, token) {
      place = i;
      select.value = String(i);
      [...strip.children].forEach((part, n) => part.classList.toggle("here", n === i));
      const seen = new Set();
      spans = [];
      text.replaceChildren();
      for (const item of pieces[i].tokens) {
        if (seen.has(item)) continue;
        seen.add(item);
        const span = document.createElement("span");
        span.textContent = item.words;
        span.className = classOf(view, VIEWS[view](item.frozen, item.bits), held.steps);
        span.item = item;
        span.place = spans.length;
        spans.push(span);
        text.append(span);
      }
      mark(null);
      if (token !== undefined) {
        const item = pieces[i].tokens[token];
        const span = spans.find((each) => each.item === item);
        mark(span);
        span.scrollIntoView({ block: "center" });
        text.focus({ preventScroll: true });
      }
    }

    function mark(span) {
      if (marked) marked.classList.remove("here");
      marked = span;
      if (!span) { said.textContent = "Point at a token, or move with the arrow keys."; return; }
      span.classList.add("here");
      const { words, frozen, bits } = span.item;
      const change = bits - frozen;
      said.textContent = `“${shown(words)}”  ${bits.toFixed(2)} bits as scored, ` +
        `${frozen.toFixed(2)} frozen (${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(2)})`;
    }

    text.addEventListener("pointerover", (event) => {
      if (event.target.item) mark(event.target);
    });
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || !spans.length) return;
      event.preventDefault();
      const next = marked ? marked.place + step : 0;
      if (spans[next]) { mark(spans[next]); spans[next].scrollIntoView({ block: "nearest" }); }
    });
    select.addEventListener("change", () => show(Number(select.value)));
    for (const button of section.querySelectorAll("button[data-piece]")) {
      button.hidden = false;
      button.addEventListener("click", () =>
        show(Number(button.dataset.piece), Number(button.dataset.token)));
    }
    for (const radio of section.querySelectorAll("input[type=radio]")) {
      radio.addEventListener("change", () => {
        view = radio.value;
        section.dataset.view = view;
        show(place);
      });
    }
    for (const step of [-1, 1]) {
      find(step < 0 ? "before" : "after").addEventListener("click", () =>
        show((place + step + pieces.length) % pieces.length));
    }
    show(0);
    find("controls").hidden = false;
  }

  for (const section of document.querySelectorAll("section.text")) start(section);
})();
