// A client of onelook's REST service for browsers and Node 18 or later; nothing to install.
//
//   const client = new OnelookClient("http://127.0.0.1:8000");
//   const asset = await client.imageTo3d(file, { texture_size: 1024 }, {
//     onProgress: (percent, stage) => console.log(percent, stage),
//   });
//   viewer.src = URL.createObjectURL(await client.download(asset.model_url));
//
// A picture is a Blob or File, as <input type="file"> gives it. A page of another origin can call the
// service only where its operator has named that origin (cors_origins).

const OVER = ["succeeded", "failed", "canceled"];

export class OnelookError extends Error {
  constructor(code, detail, id = "", retryAfter = null) {
    super(detail);
    this.name = "OnelookError";
    this.code = code; // HTTP status, 0 for a job that failed
    this.id = id; // for the operator of the service
    this.retryAfter = retryAfter; // seconds
  }
}

export class OnelookClient {
  constructor(baseUrl, { apiKey } = {}) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  }

  /** How the service is: status, model_loaded, queue_length, ... */
  async health() {
    return (await this.#send("GET", "/health")).json();
  }

  /** Make an asset of a picture and wait for it; -> { job_id, model_url, video_url, ... }. */
  async imageTo3d(picture, options = {}, { onProgress, signal } = {}) {
    if (!onProgress) return (await this.#post(picture, options, {}, signal)).json();
    let job = await this.start(picture, options, { signal });
    try {
      for await (job of this.events(job.job_id, { signal })) {
        onProgress(job.progress, job.stage ?? job.status);
      }
    } catch (error) {
      if (signal?.aborted) await this.cancel(job.job_id);
      throw error;
    }
    if (job.status !== "succeeded") throw new OnelookError(0, job.message, job.job_id);
    return job;
  }

  /** Hand in a picture; -> its job, at once. */
  async start(picture, options = {}, { signal } = {}) {
    return (await this.#post(picture, options, { Prefer: "respond-async" }, signal)).json();
  }

  /** How a job is. */
  async job(jobId) {
    return (await this.#send("GET", `/api/v1/jobs/${jobId}`)).json();
  }

  /** The job now and after each change, until it is over. */
  async *events(jobId, { signal } = {}) {
    const answer = await this.#send("GET", `/api/v1/jobs/${jobId}/events`, { signal });
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of chunks(answer.body)) {
      text += decoder.decode(chunk, { stream: true });
      const lines = text.split(/\r?\n/);
      text = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const job = JSON.parse(line.slice(5));
        yield job;
        if (OVER.includes(job.status)) return;
      }
    }
  }

  /** Cancel a job, also while it runs. */
  async cancel(jobId) {
    return (await this.#send("POST", `/api/v1/jobs/${jobId}/cancel`)).json();
  }

  /** Remove a job's files from the service. */
  async delete(jobId) {
    await this.#send("DELETE", `/api/v1/outputs/${jobId}`);
  }

  /** A file that an answer names, as a Blob of its type. */
  async download(url) {
    return (await this.#send("GET", url)).blob();
  }

  #post(picture, options, headers, signal) {
    const body = new FormData();
    for (const [name, value] of Object.entries(options)) body.set(name, String(value));
    body.set("image", picture, picture.name ?? "picture");
    return this.#send("POST", "/api/v1/image-to-3d", { body, headers, signal });
  }

  async #send(method, path, { body, headers = {}, signal } = {}) {
    const url = new URL(path, `${this.baseUrl}/`);
    const answer = await fetch(url, { method, body, signal, headers: { ...this.headers, ...headers } });
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({ detail: answer.statusText, id: "" }));
    const retryAfter = answer.headers.get("Retry-After");
    throw new OnelookError(answer.status, told.detail, told.id, retryAfter && Number(retryAfter));
  }
}

async function* chunks(stream) {
  const reader = stream.getReader(); // not every browser can iterate a stream
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel();
  }
}
