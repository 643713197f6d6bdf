// What the lines of a picture stand at, where somebody points or moves with the arrow keys.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  function start(figure, svg, panels) {
    const said = document.createElement("output");
    said.className = "said small";
    said.ariaLive = "polite";
    figure.append(said);
    figure.tabIndex = 0;
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", svg.getAttribute("aria-label") + "; arrow keys read values");
    const rule = document.createElementNS(SVG, "line");
    rule.setAttribute("class", "rule");
    const top = Math.min(...panels.map((panel) => panel.top));
    const end = Math.max(...panels.map((panel) => panel.top + panel.height));
    rule.setAttribute("y1", top);
    rule.setAttribute("y2", end);
    const steps = panels[0].lines[0].at;
    let place = -1;

    const nearest = (at, x) =>
      at.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(at[best] - x) ? i : best), 0);

    function show(x) {
      rule.setAttribute("x1", x);
      rule.setAttribute("x2", x);
      svg.append(rule);
      const first = panels[0].lines[0];
      const values = panels.flatMap((panel) => panel.lines.map((line) => {
        const y = line.y[nearest(line.at, x)];
        return `${line.name} ${y.toLocaleString("en", { maximumSignificantDigits: 5 })}`;
      }));
      const where = first.x[nearest(first.at, x)].toLocaleString("en");
      said.textContent = `${where} ${panels[0].x}: ${values.join(", ")}`;
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      place = nearest(steps, x);
      show(steps[place]);
    });
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      place = Math.min(steps.length - 1, Math.max(0, place + step));
      show(steps[place]);
    });
  }

  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg[data-values]");
    const panels = svg ? JSON.parse(svg.dataset.values) : [];
    if (panels.length) start(figure, svg, panels);
  }
})();
