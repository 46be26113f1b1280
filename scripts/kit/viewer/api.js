// Calls of the service. Same origin only: the page's policy allows no other.

const TRIES = 6;
const MOST_WAIT = 30; // seconds, whatever Retry-After says

/** The service refused, or did not answer (status 0). logId: as in its log. */
export class ServiceError extends Error {
  constructor(status, message, logId = "") {
    super(message);
    this.status = status;
    this.logId = logId;
  }
}

/** Headers that carry the key, where there is one. */
export function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * POST one request; the reply's `result`. 429 and 503 that say when to come again are tried again.
 * Throws ServiceError, or AbortError when `signal` is aborted.
 */
export async function post(path, fields, key, signal) {
  const body = JSON.stringify(fields);
  for (let attempt = 1; ; attempt++) {
    const reply = await send(path, body, key, signal);
    const again = Number(reply.headers.get("Retry-After"));
    if (![429, 503].includes(reply.status) || !(again > 0) || attempt >= TRIES) return resultOf(reply);
    await reply.body?.cancel();
    await wait(Math.min(again, MOST_WAIT) * 1000, signal);
  }
}

async function send(path, body, key, signal) {
  try {
    const all = { "Content-Type": "application/json", ...headers(key) };
    return await fetch(path, { method: "POST", headers: all, body, signal, credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "");
  }
}

async function resultOf(reply) {
  let body;
  try {
    body = await reply.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(reply.status, "");
  }
  if (reply.ok && body?.errorCode === 0 && Array.isArray(body.result?.layoutParsingResults)) return body.result;
  throw new ServiceError(reply.status, String(body?.errorMsg ?? ""), String(body?.logId ?? ""));
}

function wait(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const left = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", left);
      resolve();
    }, milliseconds);
    if (signal?.aborted) left();
    else signal?.addEventListener("abort", left, { once: true });
  });
}

/** Bytes as base64. */
export function encoded(bytes) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob([bytes]));
  });
}
