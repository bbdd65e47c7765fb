// node clients/javascript/example.mjs http://127.0.0.1:8000 examples/robot.png out/ texture_size=1024
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { OnelookClient } from "./onelook.mjs";

const [service, picture, folder, ...pairs] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node example.mjs SERVICE IMAGE FOLDER [option=value ...]");
  process.exit(2);
}
const client = new OnelookClient(service, { apiKey: process.env.ONELOOK_API_KEY });
const options = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s).slice(0, 2)));

try {
  const asset = await client.imageTo3d(new Blob([await readFile(picture)]), options, {
    onProgress: (percent, stage) => console.error(`${percent.toFixed(0).padStart(3)} % ${stage}`),
  });
  await mkdir(folder, { recursive: true });
  for (const url of Object.values(asset)) {
    if (!String(url).includes(`/outputs/${asset.job_id}/`)) continue;
    const path = join(folder, basename(url));
    await writeFile(path, Buffer.from(await (await client.download(url)).arrayBuffer()));
    console.log(path);
  }
} catch (error) {
  console.error(`${error.code ?? ""} ${error.message} ${error.id ?? ""}`.trim());
  process.exit(1);
}
