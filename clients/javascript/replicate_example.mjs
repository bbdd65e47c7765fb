// The same model behind Cog: on Replicate, or in a container of one's own.
//
//   npm install replicate
//   REPLICATE_API_TOKEN=... node clients/javascript/replicate_example.mjs OWNER/NAME:VERSION examples/robot.png out/
//   REPLICATE_BASE_URL=http://127.0.0.1:5000 node clients/javascript/replicate_example.mjs onelook/onelook:local ...
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import Replicate from "replicate";

const [model, picture, folder, ...pairs] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node replicate_example.mjs OWNER/NAME:VERSION IMAGE FOLDER [option=value ...]");
  process.exit(2);
}
const baseUrl = process.env.REPLICATE_BASE_URL;
const replicate = new Replicate({
  auth: process.env.REPLICATE_API_TOKEN ?? "none",
  ...(baseUrl && { baseUrl }),
  useFileOutput: false, // addresses instead of streams
});
const content = await readFile(picture);
// Replicate stores uploads for its models; a container of one's own takes the picture inline.
const inline = `data:application/octet-stream;base64,${content.toString("base64")}`;
const input = { image: baseUrl ? inline : content };
for (const pair of pairs) {
  const [name, value] = pair.split(/=(.*)/s);
  input[name] = parse(value);
}

const output = await replicate.run(model, { input, wait: { mode: "block" } });
await mkdir(folder, { recursive: true });
const endings = { "model/gltf-binary": "glb", "video/mp4": "mp4", "image/png": "png" };
for (const [name, url] of Object.entries(output)) {
  if (!url) continue;
  const answer = await fetch(url); // an https address on Replicate, a data URL of a local container
  const kind = answer.headers.get("content-type")?.split(";")[0];
  const path = join(folder, `${name}.${endings[kind] ?? "bin"}`);
  await writeFile(path, Buffer.from(await answer.arrayBuffer()));
  console.log(path);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
