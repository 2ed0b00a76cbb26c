"use strict";
// Points of a sweep: a scatter of two columns, coloured by a third, with the Pareto front, and a table to sort.
const sweep = JSON.parse(document.getElementById("data").textContent);
const columnOf = new Map(sweep.columns.map((column) => [column.name, column]));
const places = [...Array(sweep.numRows).keys()];
const get = (id) => document.getElementById(id);
const shown = (value) => value === null ? "-" : typeof value === "number" ? String(+value.toPrecision(4)) : value;

function fill(select, columns, value) {
  const groups = [["axes", columns.filter((one) => one.axis)], ["metrics", columns.filter((one) => !one.axis)]];
  for (const [label, members] of groups) {
    if (!members.length) continue;
    const group = document.createElement("optgroup");
    group.label = label;
    for (const one of members) group.append(new Option(one.title, one.name, false, one.name === value));
    select.append(group);
  }
  select.addEventListener("change", drawPoints);
}

// Points of which no other is at least as good in both and better in one.
function front(x, y) {
  if (!x.better || !y.better || x === y) return [];
  const cost = (column, place) => (column.better === "lower" ? 1 : -1) * column.values[place];
  const known = places.filter((place) => x.values[place] !== null && y.values[place] !== null);
  known.sort((one, other) => cost(x, one) - cost(x, other) || cost(y, one) - cost(y, other));
  let best = Infinity;
  return known.filter((place) => cost(y, place) < best && ((best = cost(y, place)), true));
}

function text(place) {
  return sweep.columns.filter((one) => one.axis).map((one) => `${one.title}: ${shown(one.values[place])}`).join("<br>");
}

function groupsOf(column) {
  const found = new Map();
  for (const place of places) {
    const value = column.values[place];
    if (!found.has(value)) found.set(value, []);
    found.get(value).push(place);
  }
  const compare = (one, other) => typeof one === "number" && typeof other === "number" ? one - other : 0;
  return column.number ? [...found].sort((one, other) => compare(one[0], other[0])) : [...found];
}

function drawPoints() {
  const [x, y, color] = ["x", "y", "color"].map((id) => columnOf.get(get(id).value));
  const groups = groupsOf(color);
  const scaled = groups.length > sweep.colors.length;  // too many for names: a scale of colours
  const trace = (members, name, marker) => ({
    type: "scatter", mode: "markers", name, marker, customdata: members,
    x: members.map((place) => x.values[place]), y: members.map((place) => y.values[place]),
    text: members.map(text), hovertemplate: `%{text}<br>${x.title}: %{x:.4~g}<br>${y.title}: %{y:.4~g}<extra></extra>`,
  });
  const traces = scaled && color.number
    ? [trace(places, color.title, {
        color: color.values, colorscale: "Cividis", showscale: true, size: 8, colorbar: { title: { text: color.title } },
      })]
    : groups.map(([value, members], index) => trace(members, shown(value), {
        color: sweep.colors[index % sweep.colors.length], symbol: sweep.symbols[index % sweep.symbols.length], size: 9,
      }));
  const best = front(x, y);
  if (best.length) {
    traces.unshift({
      type: "scatter", mode: "lines", name: "Pareto front", hoverinfo: "skip",
      x: best.map((place) => x.values[place]), y: best.map((place) => y.values[place]),
      line: { color: style("--soft"), width: 2, dash: "dot", shape: "linear" },
    });
  }
  const axis = (column, id) => ({
    title: { text: column.title }, type: column.number ? (get(`log-${id}`).checked ? "log" : "linear") : "category",
  });
  const layout = themed({ xaxis: axis(x, "x"), yaxis: axis(y, "y"), showlegend: true });
  layout.legend.title = { text: `${color.title}: ` };
  Plotly.react(get("scatter"), traces, layout, options);
  get("reading").textContent = (sweep.seeds > 1 ? "A point is a mean over its seeds. " : "")
    + (best.length ? `No point beats the ${best.length} on the dotted line in both. ` : "") + "Click one for all it has.";
  fillTable(x, y, color);
}

function choose(place) {
  const rows = sweep.columns.map((one) => `<tr><td>${one.axis ? "<b>" : ""}${escaped(one.title)}${one.axis ? "</b>" : ""}</td>`
    + `<td class="number">${escaped(String(shown(one.values[place])))}</td></tr>`);
  get("chosen").innerHTML = `<h3>Chosen point</h3><div class="scroll" tabindex="0"><table><tbody>${rows.join("")}</tbody></table></div>`;
}

function escaped(words) {
  const span = document.createElement("span");
  span.textContent = words;
  return span.innerHTML;
}

let sorted = { name: sweep.start.y, down: columnOf.get(sweep.start.y)?.better === "higher" };

function fillTable(x, y, color) {
  const names = [...new Set([
    ...sweep.columns.filter((one) => one.axis).map((one) => one.name), y.name, x.name, color.name, ...sweep.start.shown,
  ])];
  const column = columnOf.get(sorted.name);
  const order = [...places].sort((one, other) => {
    const [a, b] = [column.values[one], column.values[other]];
    if (a === null || b === null) return (a === null) - (b === null);
    return (sorted.down ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0);
  });
  const mark = (name) => name !== sorted.name ? "" : sorted.down ? " ↓" : " ↑";
  const sortWord = (name) => name !== sorted.name ? "none" : sorted.down ? "descending" : "ascending";
  const heads = names.map((name) => `<th scope="col" aria-sort="${sortWord(name)}" class="${columnOf.get(name).number ? "number" : ""}">`
    + `<button type="button" data-name="${escaped(name)}">${escaped(columnOf.get(name).title)}${mark(name)}</button></th>`);
  const rows = order.slice(0, 500).map((place) => `<tr data-place="${place}">` + names.map((name) =>
    `<td class="${columnOf.get(name).number ? "number" : ""}">${escaped(String(shown(columnOf.get(name).values[place])))}</td>`).join("") + "</tr>");
  get("rows").innerHTML = `<thead><tr>${heads.join("")}</tr></thead><tbody>${rows.join("")}</tbody>`;
}

get("rows").addEventListener("click", (event) => {
  const button = event.target.closest("button"), row = event.target.closest("tbody tr");
  if (button) {
    const name = button.dataset.name;
    const first = columnOf.get(name).better === "higher";  // the best above
    sorted = { name, down: sorted.name === name ? !sorted.down : first };
    drawPoints();
  } else if (row) choose(Number(row.dataset.place));
});
const numbers = sweep.columns.filter((one) => one.number || one.axis);
fill(get("x"), numbers, sweep.start.x);
fill(get("y"), sweep.columns.filter((one) => one.number), sweep.start.y);
fill(get("color"), sweep.columns, sweep.start.color);
for (const id of ["x", "y"]) {
  get(`log-${id}`).checked = sweep.start.log[id];
  get(`log-${id}`).addEventListener("change", drawPoints);
}
drawPoints();
get("scatter").on("plotly_click", ({ points }) => { if (points[0].customdata !== undefined) choose(points[0].customdata); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPoints);
