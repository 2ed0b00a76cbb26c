"use strict";
// Draws each chart when it comes into view, and all that are drawn again when the theme changes.
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout) {
  const ink = style("--ink"), line = style("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const own = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: ink },
    margin: { l: 8, r: 14, t: 8, b: 8 },
    hoverlabel: { font: { family: "system-ui, sans-serif" } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
    bargap: 0.35,
  };
  const found = { ...own, ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  found.annotations = (layout.annotations || []).map((note) => ({ ...note, bgcolor: style("--paper") }));
  return found;
}

const options = { responsive: true, displayModeBar: false };
const drawn = new Set();

function draw(figure) {
  const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
  Plotly.react(figure.querySelector(".plot"), data, themed(layout), options);
  drawn.add(figure);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }
}, { rootMargin: "400px" });

const figures = document.querySelectorAll("figure.chart");
figures.forEach((figure) => watcher.observe(figure));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
addEventListener("beforeprint", () => figures.forEach(draw));
