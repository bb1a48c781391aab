// One or several looping videos in step, or one of several chosen by number.
// Value: {videos: [{src, label, note}], choose: boolean, busy: string}; null for an empty place.
const root = document.createElement("div");
root.className = "cinnema-player";
element.replaceChildren(root);
let urls = [], timer = null, shown = 0;

function release() {
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  if (timer) cancelAnimationFrame(timer);
  timer = null;
}

// A blob, as some browsers do not play videos from data addresses.
function blobUrl(data) {
  const [head, body] = data.split(",");
  const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(";")[0] }));
  urls.push(url);
  return url;
}

function figure(video) {
  const box = document.createElement("figure");
  const clip = document.createElement("video");
  Object.assign(clip, { muted: true, loop: true, playsInline: true, controls: true });
  clip.autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  clip.setAttribute("controlslist", "nodownload noremoteplayback");
  clip.setAttribute("aria-label", [video.label, video.note].filter(Boolean).join(": "));
  clip.disablePictureInPicture = true;
  clip.src = blobUrl(video.src);
  const label = document.createElement("figcaption");
  const name = document.createElement("strong");
  name.textContent = video.label;
  label.append(name);
  if (video.note) label.append(" " + video.note);
  box.append(clip, label);
  return box;
}

// The first video leads; another that is more than a frame away follows.
function keepInStep(clips) {
  const follow = () => {
    const [first, ...others] = clips;
    for (const clip of others) {
      if (clip.readyState < 2 || clip.seeking) continue;
      if (clip.paused !== first.paused) first.paused ? clip.pause() : clip.play();
      const time = Math.min(first.currentTime, clip.duration - 0.01);
      if (Math.abs(clip.currentTime - time) > 0.06) clip.currentTime = time;
    }
    timer = requestAnimationFrame(follow);
  };
  follow();
}

// Shows one video, which goes on where the one before was. Browsers pause those that are hidden.
function choose(number) {
  const boxes = [...root.children], clips = boxes.map((box) => box.querySelector("video"));
  const before = clips[shown], after = clips[number];
  if (!after) return;
  if (before && before !== after) after.currentTime = before.currentTime;
  boxes.forEach((box, index) => (box.hidden = index !== number));
  if (after.autoplay) after.play();
  shown = number;
}

function show() {
  release();
  const value = props.value;
  root.replaceChildren();
  root.classList.toggle("empty", !value || !value.videos.length);
  if (!value || !value.videos.length) return;
  root.append(...value.videos.map(figure));
  root.style.setProperty("--videos", value.choose ? 1 : value.videos.length);
  if (value.choose) choose(Math.min(shown, value.videos.length - 1));
  else keepInStep([...root.querySelectorAll("video")]);
}

element.addEventListener("choose", (event) => choose(event.detail));
watch("value", show);
show();
