// The round-trip times of the last minute as a line in an <svg>, drawn to its own size in pixels.

const SPAN = 60_000;
const LONGEST_GAP = 2_000;
const MARGIN = { top: 26, right: 14, bottom: 38, left: 58 };

const element = (name, attributes, text = "") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};

export const milliseconds = (value) =>
  `${value < 1 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ms`;

// 1, 2, 5, 10, 20 ... as they come between the two, with the next one on either side.
function ticksAround(low, high) {
  const steps = [1, 2, 5];
  const at = (index) => steps[((index % 3) + 3) % 3] * 10 ** Math.floor(index / 3);
  let first = Math.floor(Math.log10(low)) * 3;
  while (at(first + 1) <= low) first++;
  let last = first + 3;
  while (at(last) < high) last++;
  return Array.from({ length: last - first + 1 }, (_, index) => at(first + index));
}

export class Chart {
  samples = []; // { at, value } in milliseconds of performance.now(), oldest first

  constructor(svg) {
    this.svg = svg;
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  add(at, value) {
    this.samples.push({ at, value });
    this.forget(at);
  }

  forget(now) {
    while (this.samples.length && this.samples[0].at < now - SPAN) this.samples.shift();
  }

  get figures() {
    if (!this.samples.length) return null;
    const { at, value: newest } = this.samples.at(-1);
    const sorted = this.samples.map((sample) => sample.value).sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    // What is older is not how it is now.
    const now = performance.now() - at <= LONGEST_GAP ? newest : null;
    return { now, median, max: sorted.at(-1) };
  }

  draw() {
    const now = performance.now();
    this.forget(now);
    const { clientWidth: width, clientHeight: height } = this.svg;
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    const x = (at) => right - ((now - at) / SPAN) * (right - MARGIN.left);

    // Logarithmic, or one slow answer would flatten a minute of quick ones.
    const values = this.samples.map((sample) => sample.value);
    const ticks = ticksAround(Math.max(0.01, Math.min(...values, 1)), Math.max(...values, 1));
    const bounds = [ticks[0], ticks.at(-1)].map(Math.log);
    const y = (value) => bottom - ((Math.log(value) - bounds[0]) / (bounds[1] - bounds[0])) * (bottom - MARGIN.top);

    const parts = [];
    for (const tick of ticks) {
      const level = y(tick);
      parts.push(element("line", { class: "grid", x1: MARGIN.left, x2: right, y1: level, y2: level }));
      // Where there are many, those of the powers of ten are enough.
      if (ticks.length <= 7 || Number.isInteger(Math.log10(tick))) {
        parts.push(element("text", { x: MARGIN.left - 8, y: level, class: "value" }, `${+tick.toPrecision(1)} ms`));
      }
    }
    for (const seconds of [60, 45, 30, 15, 0]) {
      const anchor = seconds === 0 ? "end" : seconds === 60 ? "start" : "middle";
      const label = seconds ? `${seconds} s` : "now";
      parts.push(element("text", { x: x(now - seconds * 1000), y: bottom + 18, "text-anchor": anchor }, label));
    }
    parts.push(element("text", { x: 0, y: 12 }, "Round trip (logarithmic)"));
    parts.push(element("text", { x: (MARGIN.left + right) / 2, y: height - 4, "text-anchor": "middle" }, "Time ago"));

    // A line across the time without a connection would say that something was measured there.
    const runs = [];
    let before = -Infinity;
    for (const { at, value } of this.samples) {
      if (at - before > LONGEST_GAP) runs.push([]);
      runs.at(-1).push(`${x(at).toFixed(1)},${y(value).toFixed(1)}`);
      before = at;
    }
    for (const run of runs) parts.push(element("path", { class: "line", d: `M${run.join("L")}` }));
    const figures = this.figures;
    if (figures) {
      const level = y(figures.median);
      parts.push(element("line", { class: "median", x1: MARGIN.left, x2: right, y1: level, y2: level }));
      const label = `median ${milliseconds(figures.median)}`;
      parts.push(element("text", { class: "name", x: MARGIN.left + 6, y: level - 6 }, label));
    }
    const newest = this.samples.at(-1);
    if (newest) parts.push(element("circle", { class: "newest", cx: x(newest.at), cy: y(newest.value), r: 3.5 }));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...parts);
  }
}
