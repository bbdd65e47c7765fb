// Print the Khronos validator's reports on the given .glb files, as one JSON object by file name.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";

const validator = createRequire(import.meta.url)("gltf-validator");
const reports = {};
for (const path of process.argv.slice(2)) {
  const bytes = new Uint8Array(readFileSync(path));
  const report = await validator.validateBytes(bytes, { uri: basename(path), maxIssues: 100 });
  reports[path] = report.issues;
}
console.log(JSON.stringify(reports));
