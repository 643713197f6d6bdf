// What the lines or rows of a picture stand at, where somebody points or moves with the arrow keys.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const nearest = (at, place) =>
    at.reduce((best, each, i) => (Math.abs(each - place) < Math.abs(at[best] - place) ? i : best), 0);

  // A reader: along which axis it goes, over what the rule reaches, where it stops, what it says.
  function ofRows(panel) {
    return {
      axis: "y", across: "x", keys: { ArrowDown: 1, ArrowUp: -1 },
      from: panel.left, to: panel.left + panel.width,
      stops: panel.rows.map((row) => row.at),
      said: (i) => panel.rows[i].said,
    };
  }

  function ofLines(panels) {
    const first = panels[0].lines[0];
    return {
      axis: "x", across: "y", keys: { ArrowRight: 1, ArrowLeft: -1 },
      from: Math.min(...panels.map((panel) => panel.top)),
      to: Math.max(...panels.map((panel) => panel.top + panel.height)),
      stops: first.at,
      said: (i) => {
        const values = panels.flatMap((panel) => panel.lines.map((line) => {
          const y = line.y[nearest(line.at, first.at[i])];
          return `${line.name} ${y.toLocaleString("en", { maximumSignificantDigits: 5 })}`;
        }));
        return `${first.x[i].toLocaleString("en")} ${panels[0].x}: ${values.join(", ")}`;
      },
    };
  }

  function start(figure, svg, reader) {
    const said = document.createElement("output");
    said.className = "said small";
    said.ariaLive = "polite";
    figure.append(said);
    figure.tabIndex = 0;
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", svg.getAttribute("aria-label") + "; arrow keys read values");
    const rule = document.createElementNS(SVG, "line");
    rule.setAttribute("class", "rule");
    rule.setAttribute(`${reader.across}1`, reader.from);
    rule.setAttribute(`${reader.across}2`, reader.to);
    let place = -1;

    function show(stop) {
      place = Math.min(reader.stops.length - 1, Math.max(0, stop));
      rule.setAttribute(`${reader.axis}1`, reader.stops[place]);
      rule.setAttribute(`${reader.axis}2`, reader.stops[place]);
      svg.append(rule);
      said.textContent = reader.said(place);
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
      show(nearest(reader.stops, reader.axis === "x"
        ? (event.clientX - box.left) * view.width / box.width
        : (event.clientY - box.top) * view.height / box.height));
    });
    figure.addEventListener("keydown", (event) => {
      const step = reader.keys[event.key];
      if (!step) return;
      event.preventDefault();
      show(place + step);
    });
  }

  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg[data-values]");
    const panels = svg ? JSON.parse(svg.dataset.values) : [];
    if (!panels.length) continue;
    start(figure, svg, panels[0].rows.length ? ofRows(panels[0]) : ofLines(panels));
  }
})();
