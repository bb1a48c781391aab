// Arrows and paint on a picture. All places are shares of the picture's width and height, so they
// are right at any size on the screen.
// Value from Python: {image, width, height, guess: {width, height, data}, hints, mode, seconds}.
// Value to Python: {arrows: [[x, y, dx, dy]], paint: {width, height, data} | null, point}.
const NS = "http://www.w3.org/2000/svg";
const MOST_CELLS = 256, STILL = 1, MOVE = 2, STEP = 0.02;
const find = (name) => element.querySelector(`[data-part=${name}]`);
const stage = find("stage"), picture = find("picture"), canvas = find("paint"), svg = find("arrows");
const hint = find("hint"), legend = find("legend"), list = find("list");
let arrows = [], cells = null, guess = null, point = null, tool = "arrow", size = 0.06;
let wide = 1, tall = 1, mode = "none", drag = null, chosen = -1, cursor = [0.5, 0.5], later = null;

const clamp = (value) => Math.min(1, Math.max(0, value));
const percent = (value) => `${Math.round(100 * value)}%`;

function place(event) {
  const box = stage.getBoundingClientRect();
  return [clamp((event.clientX - box.left) / box.width),
          clamp((event.clientY - box.top) / box.height)];
}

function load() {
  const value = props.value;
  if (!value || !value.image) {
    if (!value) { mode = "none"; stage.hidden = true; }
    return;
  }
  ({ width: wide, height: tall, mode } = value);
  element.querySelectorAll("[data-mode]").forEach((part) => (part.hidden = part.dataset.mode !== mode));
  stage.hidden = mode === "none";
  stage.style.aspectRatio = `${wide} / ${tall}`;
  stage.style.maxWidth = `calc(70vh * ${wide / tall})`;
  picture.src = value.image;
  guess = value.guess && { ...value.guess, cells: bytes(value.guess.data) };
  const scale = MOST_CELLS / Math.max(wide, tall);
  canvas.width = Math.max(1, Math.round(wide * scale));
  canvas.height = Math.max(1, Math.round(tall * scale));
  cells = new Uint8Array(canvas.width * canvas.height);
  const hints = value.hints || {};
  arrows = (hints.arrows || []).map((arrow) => [...arrow]);
  point = hints.point || null;
  if (hints.paint) take(hints.paint);
  chosen = -1;
  use(mode === "point" ? "point" : "arrow");
  draw();
  props.value = drawn(); // the picture need not travel back
}

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// A painting may have been made with other cells.
function take(paint) {
  const old = bytes(paint.data);
  for (let row = 0; row < canvas.height; row++) {
    for (let column = 0; column < canvas.width; column++) {
      const y = Math.floor((row * paint.height) / canvas.height);
      const x = Math.floor((column * paint.width) / canvas.width);
      cells[row * canvas.width + column] = old[y * paint.width + x];
    }
  }
}

function drawn() {
  const painted = cells && cells.some((cell) => cell > 0);
  const data = painted ? btoa(Array.from(cells, (cell) => String.fromCharCode(cell)).join("")) : "";
  return {
    arrows: arrows.map((arrow) => arrow.map((value) => +value.toFixed(5))),
    paint: painted ? { width: canvas.width, height: canvas.height, data } : null,
    point,
  };
}

function send() {
  clearTimeout(later);
  later = setTimeout(() => {
    props.value = drawn();
    trigger("edited");
  }, 120);
}

function draw() {
  drawPaint();
  drawArrows();
}

function drawPaint() {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let index = 0; index < cells.length; index++) {
    const row = Math.floor(index / canvas.width), column = index % canvas.width;
    let colour = [0, 0, 0, 0];
    if (cells[index] === STILL) colour = [220, 60, 30, (row + column) % 8 < 4 ? 190 : 110];
    else if (cells[index] === MOVE) colour = [30, 170, 70, 150];
    else if (guess && legend.querySelector("input").checked) {
      const y = Math.floor((row * guess.height) / canvas.height);
      const x = Math.floor((column * guess.width) / canvas.width);
      colour = [40, 110, 255, 0.4 * guess.cells[y * guess.width + x]];
    }
    image.data.set(colour, 4 * index);
  }
  context.putImageData(image, 0, 0);
}

function part(name, attributes, parent) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

function drawArrows() {
  const focused = document.activeElement && document.activeElement.dataset
    ? document.activeElement.dataset.index : undefined;
  const box = stage.getBoundingClientRect();
  const w = box.width || 1, h = box.height || 1;
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.replaceChildren();
  arrows.forEach(([x, y, dx, dy], index) => {
    const ends = [x * w, y * h, (x + dx) * w, (y + dy) * h];
    const label = `Arrow ${index + 1}, from ${percent(x)} right and ${percent(y)} down, ` +
      `by ${percent(dx)} right and ${percent(dy)} down. Arrow keys move its tip, with Shift all ` +
      "of it; Delete removes it.";
    const group = part("g", { tabindex: 0, role: "button", "aria-label": label,
      class: index === chosen ? "arrow chosen" : "arrow", "data-index": index }, svg);
    const [x1, y1, x2, y2] = ends;
    for (const kind of ["halo", "line"]) part("line", { x1, y1, x2, y2, class: kind }, group);
    const angle = Math.atan2(y2 - y1, x2 - x1);
    const tip = [0, 2.6, -2.6].map((turn) => turn === 0 ? `${x2},${y2}`
      : `${x2 + 15 * Math.cos(angle + turn)},${y2 + 15 * Math.sin(angle + turn)}`).join(" ");
    part("polygon", { points: tip, class: "tip" }, group);
    part("circle", { cx: x1, cy: y1, r: 5, class: "tail" }, group);
    part("circle", { cx: x1, cy: y1, r: 14, class: "grip", "data-end": "tail" }, group);
    part("circle", { cx: x2, cy: y2, r: 18, class: "grip", "data-end": "tip" }, group);
  });
  if (point) {
    part("circle", { cx: point[0] * w, cy: point[1] * h, r: 10, class: "target" }, svg);
    part("circle", { cx: point[0] * w, cy: point[1] * h, r: 2, class: "target" }, svg);
  }
  if (document.activeElement === stage) {
    const radius = tool === "still" || tool === "move" || tool === "none" ? (size / 2) * Math.max(w, h) : 6;
    part("circle", { cx: cursor[0] * w, cy: cursor[1] * h, r: radius, class: "cursor" }, svg);
  }
  if (focused !== undefined && svg.children[focused]) svg.children[focused].focus();
  list.textContent = arrows.length === 1 ? "1 arrow" : `${arrows.length} arrows`;
}

function brush([x, y]) {
  const value = { still: STILL, move: MOVE, none: 0 }[tool];
  const radius = (size / 2) * MOST_CELLS;
  const cx = x * canvas.width, cy = y * canvas.height;
  for (let row = Math.max(0, Math.floor(cy - radius)); row <= Math.min(canvas.height - 1, cy + radius); row++) {
    for (let column = Math.max(0, Math.floor(cx - radius)); column <= Math.min(canvas.width - 1, cx + radius); column++) {
      if (Math.hypot(column + 0.5 - cx, row + 0.5 - cy) <= radius) cells[row * canvas.width + column] = value;
    }
  }
}

function stroke(from, to) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / (size / 4)));
  for (let step = 0; step <= steps; step++) {
    brush([from[0] + ((to[0] - from[0]) * step) / steps, from[1] + ((to[1] - from[1]) * step) / steps]);
  }
  drawPaint();
}

function remove(index) {
  arrows.splice(index, 1);
  chosen = -1;
  drawArrows();
  stage.focus({ preventScroll: true });
  send();
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button || mode === "none") return;
  event.preventDefault();
  const at = place(event);
  cursor = at;
  stage.setPointerCapture(event.pointerId);
  if (tool === "point") {
    point = at;
    drawArrows();
    return send();
  }
  if (tool !== "arrow") {
    drag = { last: at };
    return stroke(at, at);
  }
  const grip = event.target.closest ? event.target.closest("[data-end]") : null;
  const group = event.target.closest ? event.target.closest("[data-index]") : null;
  if (group) {
    chosen = +group.dataset.index;
    drag = { index: chosen, end: grip ? grip.dataset.end : "whole", last: at };
  } else {
    arrows.push([at[0], at[1], 0, 0]);
    chosen = arrows.length - 1;
    drag = { index: chosen, end: "tip", last: at, fresh: true };
  }
  drawArrows();
});

stage.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const at = place(event);
  if (drag.index === undefined) {
    stroke(drag.last, at);
    drag.last = at;
    return;
  }
  pull(drag.index, drag.end, at[0] - drag.last[0], at[1] - drag.last[1]);
  drag.last = at;
  drawArrows();
});

function finish() {
  if (!drag) return;
  const { index, fresh } = drag;
  drag = null;
  if (index !== undefined) {
    const box = stage.getBoundingClientRect();
    const length = Math.hypot(arrows[index][2] * box.width, arrows[index][3] * box.height);
    if (fresh && length < 8) {
      arrows.splice(index, 1);
      chosen = -1;
      return drawArrows();
    }
    drawArrows();
    svg.children[index].focus({ preventScroll: true });
  }
  send();
}
stage.addEventListener("pointerup", finish);
stage.addEventListener("pointercancel", finish);

function pull(index, end, dx, dy) {
  const arrow = arrows[index];
  if (end === "tip") {
    arrow[2] += dx;
    arrow[3] += dy;
    return;
  }
  const [x, y] = [clamp(arrow[0] + dx), clamp(arrow[1] + dy)];
  if (end === "tail") {
    arrow[2] += arrow[0] - x;
    arrow[3] += arrow[1] - y;
  }
  arrow[0] = Math.min(x, 0.9999);
  arrow[1] = Math.min(y, 0.9999);
}

stage.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
  const group = event.target.closest("[data-index]");
  if (group) {
    const index = +group.dataset.index;
    if (way) pull(index, event.shiftKey ? "whole" : "tip", ...way);
    else if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); return remove(index); }
    else return;
    event.preventDefault();
    drawArrows();
    return send();
  }
  if (event.target !== stage) return;
  if (way) {
    const before = cursor;
    cursor = [clamp(cursor[0] + way[0]), clamp(cursor[1] + way[1])];
    if (event.shiftKey && !["arrow", "point"].includes(tool)) { stroke(before, cursor); send(); }
    drawArrows();
  } else if (event.key === " " || event.key === "Enter") {
    if (tool === "arrow") arrows.push([Math.min(cursor[0], 0.9999), Math.min(cursor[1], 0.9999), 0.1, 0]);
    else if (tool === "point") point = cursor;
    else stroke(cursor, cursor);
    drawArrows();
    if (tool === "arrow") svg.children[arrows.length - 1].focus();
    send();
  } else return;
  event.preventDefault();
});
stage.addEventListener("focusin", (event) => { if (event.target === stage) drawArrows(); });
stage.addEventListener("focusout", (event) => { if (event.target === stage) setTimeout(drawArrows); });

function use(name) {
  tool = name;
  element.querySelectorAll("[data-tool]").forEach((button) =>
    button.setAttribute("aria-pressed", button.dataset.tool === name));
  stage.dataset.tool = name;
  hint.textContent = {
    arrow: "Drag on the picture: what is at the tail goes to the tip. Drag an end to change it, Delete to remove it.",
    still: "Paint what must stand still.",
    move: "Paint what must move.",
    none: "Wipe paint away.",
    point: "Click where the hand should end.",
  }[name];
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.tool) { use(button.dataset.tool); drawArrows(); }
  if (button.dataset.part === "undo" && arrows.length) remove(arrows.length - 1);
  if (button.dataset.part === "clear") {
    arrows = [];
    point = null;
    if (cells) cells.fill(0);
    draw();
    send();
  }
});
find("size").addEventListener("input", (event) => (size = event.target.value / 100));
legend.querySelector("input").addEventListener("change", drawPaint);
new ResizeObserver(() => { if (cells) drawArrows(); }).observe(stage);
watch("value", load);
load();
