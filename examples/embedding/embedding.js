// What the page does: send the picture, show how far it is, show the model. The service is asked under
// the page's own address (serve.py passes it on), so there is no key in the page and no other origin.
import { OnelookClient } from "/vendor/onelook.mjs";

const OPTIONS = new URLSearchParams(location.search); // /?texture_size=512 asks for small textures
const client = new OnelookClient(location.origin);
const part = (id) => document.getElementById(id);
let running = null;

part("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  running = new AbortController();
  show("Sending the picture …", 0);
  try {
    const picture = new FormData(event.target).get("image");
    const asset = await client.imageTo3d(picture, Object.fromEntries(OPTIONS), {
      onProgress: (percent, stage) => show(stage, percent),
      signal: running.signal,
    });
    part("model").src = asset.model_url;
    part("download").href = asset.model_url;
    part("video").hidden = !asset.video_url;
    if (asset.video_url) part("video").src = asset.video_url;
    part("results").hidden = false;
    show(`Done: ${asset.metrics.faces} faces, seed ${asset.seed}.`);
  } catch (error) {
    show(running.signal.aborted ? "Canceled." : error.message, null, !running.signal.aborted);
  }
});

part("stop").addEventListener("click", () => running?.abort());

function show(sentence, percent = null, isError = false) {
  const isRunning = percent !== null;
  part("status").textContent = sentence;
  part("status").role = isError ? "alert" : "status";
  part("progress").hidden = part("stop").hidden = !isRunning;
  part("progress").value = percent ?? 0;
  part("go").disabled = isRunning;
}

const settings = await (await fetch("/settings.json")).json();
if (settings.demo) {
  part("demo").hidden = false;
  part("demo").querySelector("iframe").src = settings.demo;
}
