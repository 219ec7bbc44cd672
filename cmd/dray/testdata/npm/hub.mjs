// Downloads a repository with the real client and says what came, as JSON. Usage: node hub.mjs ENDPOINT REPO CACHE ACTION…
import { createHash } from "node:crypto";
import { readFile, readdir, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import * as hub from "@huggingface/hub";

const [hubUrl, repo, cacheDir, ...actions] = process.argv.slice(2);
console.debug = () => {};

const sha256 = (data) => createHash("sha256").update(Buffer.from(data)).digest("hex");

async function filesUnder(dir, root = dir) {
  const found = {};
  for (const name of (await readdir(dir)).sort()) {
    const path = join(dir, name);
    if ((await stat(path)).isDirectory()) Object.assign(found, await filesUnder(path, root));
    else found[relative(root, path)] = sha256(await readFile(path));
  }
  return found;
}

const name = repo.replace(/^(datasets|spaces)\//, "");
const does = {
  snapshot: async () => filesUnder(await hub.snapshotDownload({ repo, cacheDir, hubUrl })),
  info: async () => (repo.startsWith("datasets/") ? hub.datasetInfo : hub.modelInfo)({ name, hubUrl, additionalFields: ["sha", "tags"] }),
  list: async () => {
    const all = [];
    for await (const f of hub.listFiles({ repo, hubUrl, recursive: true, expand: true })) all.push(f);
    return all;
  },
  top: async () => {
    const all = [];
    for await (const f of hub.listFiles({ repo, hubUrl })) all.push(f);
    return all;
  },
  models: async () => {
    const all = [];
    for await (const m of hub.listModels({ hubUrl, search: { owner: name.split("/")[0] }, additionalFields: ["sha"] })) all.push(m);
    return all;
  },
  commits: async () => {
    const all = [];
    for await (const c of hub.listCommits({ repo, hubUrl })) all.push(c);
    return all;
  },
  paths: () => hub.pathsInfo({ repo, hubUrl, expand: true, paths: ["README.md", "model.safetensors", "sub", "missing"] }),
  slice: async () => {
    const blob = await hub.downloadFile({ repo, hubUrl, path: "model.safetensors" });
    return { size: blob.size, head: sha256(await blob.slice(0, 1000).arrayBuffer()), tail: sha256(await blob.slice(blob.size - 1000).arrayBuffer()) };
  },
  raw: async () => (await hub.downloadFile({ repo, hubUrl, path: "model.safetensors", raw: true })).text(),
  missing: async () => ({
    file: await hub.downloadFile({ repo, hubUrl, path: "missing.txt" }),
    exists: await hub.fileExists({ repo, hubUrl, path: "missing.txt" }),
    repo: await hub.repoExists({ repo: "org/missing", hubUrl }),
    revision: await hub.modelInfo({ name, hubUrl, revision: "missing" }).catch((e) => e.statusCode),
  }),
  safetensors: async () => {
    const m = await hub.parseSafetensorsMetadata({ repo, hubUrl, computeParametersCount: true });
    return { sharded: m.sharded, tensors: Object.keys(m.header).filter((k) => k !== "__metadata__"), count: m.parameterCount };
  },
};

const result = {};
for (const action of actions) result[action] = await does[action]();
console.log(JSON.stringify(result));
