// A dial for a direction. Value: degrees counter-clockwise from the right, from 0 to 359.
element.innerHTML = `<div class="cinnema-dial">
  <svg viewBox="-60 -60 120 120" tabindex="0" role="slider" aria-valuemin="0" aria-valuemax="359"
    aria-label="Direction of the wind in degrees: 0 to the right, 90 up">
    <circle class="face" r="52"></circle>
    <g><line x1="-34" y1="0" x2="34" y2="0"></line><polygon points="48,0 30,-10 30,10"></polygon></g>
  </svg>
  <span>The wind blows to <output></output></span>
</div>`;
const face = element.querySelector("svg"), needle = element.querySelector("g");
const NAMES = ["right", "upper right", "up", "upper left", "left", "lower left", "down", "lower right"];
let degrees = 0, held = false, later = null;

function show() {
  degrees = ((Math.round(Number(props.value) || 0) % 360) + 360) % 360;
  const name = NAMES[Math.round(degrees / 45) % 8];
  needle.setAttribute("transform", `rotate(${-degrees})`);
  face.setAttribute("aria-valuenow", degrees);
  face.setAttribute("aria-valuetext", `${degrees} degrees, ${name}`);
  element.querySelector("output").textContent = `${degrees}°, ${name}`;
}

function turn(to) {
  props.value = ((Math.round(to) % 360) + 360) % 360;
  show();
}

function point(event) {
  const box = face.getBoundingClientRect();
  const x = event.clientX - box.left - box.width / 2, y = box.top + box.height / 2 - event.clientY;
  turn((Math.atan2(y, x) * 180) / Math.PI);
}

function done() {
  clearTimeout(later);
  later = setTimeout(() => trigger("turned"), 400);
}

face.addEventListener("pointerdown", (event) => {
  held = true;
  face.setPointerCapture(event.pointerId);
  point(event);
});
face.addEventListener("pointermove", (event) => held && point(event));
face.addEventListener("pointerup", () => {
  held = false;
  done();
});
face.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: 5, ArrowUp: 5, ArrowRight: -5, ArrowDown: -5, PageUp: 45, PageDown: -45 }[event.key];
  if (!step) return;
  event.preventDefault();
  turn(degrees + step);
  done();
});
watch("value", show);
show();
