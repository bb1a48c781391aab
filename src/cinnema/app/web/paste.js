// A picture that is pasted anywhere on the page is dropped in the place for pictures.
const find = (selector) => document.querySelector(`#picture ${selector}`);

document.addEventListener("paste", async (event) => {
  const picture = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (!picture) return;
  event.preventDefault();
  const clear = find("button[aria-label='Clear'], button[title='Clear']");
  if (clear) clear.click();
  for (let tries = 0; tries < 40 && !find("input[type=file]"); tries++) {
    await new Promise((done) => setTimeout(done, 50));
  }
  const input = find("input[type=file]");
  if (!input) return;
  const files = new DataTransfer();
  files.items.add(picture);
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
