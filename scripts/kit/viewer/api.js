// Calls of the service. Same origin only: the page's policy allows no other.

const TRIES = 6; // of a request, where the service says when to come again
const TRIES_UNASKED = 4; // where it does not: after 1, 2 and 4 seconds
const MOST_WAIT = 30; // seconds, whatever Retry-After says
const PASSING = new Set([429, 502, 503, 504]); // a busy service, or one that a proxy does not reach

/** The service refused, or did not answer (status 0). logId: as in its log. isPassing: the same request may fare better soon. */
export class ServiceError extends Error {
  constructor(status, message, logId = "", isPassing = false) {
    super(message);
    Object.assign(this, { status, logId, isPassing });
  }
}

/** Headers that carry the key, where there is one. Throws ServiceError (401) for what no header can carry. */
export function headers(key) {
  if (/[^\x20-\x7e]/.test(key)) throw new ServiceError(401, "");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * POST one request; the reply's `result`. What may pass is tried again after a pause.
 * Throws ServiceError, or AbortError when `signal` is aborted.
 */
export async function post(path, fields, key, signal) {
  const all = { "Content-Type": "application/json", ...headers(key) };
  const request = { method: "POST", headers: all, body: JSON.stringify(fields), signal, credentials: "omit", redirect: "error" };
  for (let attempt = 1; ; attempt++) {
    let reply = null;
    try {
      reply = await fetch(path, request);
      return resultOf(await reply.json(), reply);
    } catch (thrown) {
      if (signal?.aborted) throw thrown;
      const error = thrown instanceof ServiceError ? thrown : brokenOff(reply);
      const asked = Number(reply?.headers.get("Retry-After"));
      if (!error.isPassing || attempt >= (asked > 0 ? TRIES : TRIES_UNASKED)) throw error;
      await wait(1000 * (asked > 0 ? Math.min(asked, MOST_WAIT) : 2 ** (attempt - 1)), signal);
    }
  }
}

function resultOf(body, reply) {
  if (reply.ok && body?.errorCode === 0 && Array.isArray(body.result?.layoutParsingResults)) return body.result;
  throw new ServiceError(reply.status, String(body?.errorMsg ?? ""), String(body?.logId ?? ""), isPassing(reply));
}

/** No reply (null), or one that is no JSON: it was cut off, or a proxy has answered. */
function brokenOff(reply) {
  return new ServiceError(reply?.status ?? 0, "", "", !reply || reply.ok || isPassing(reply));
}

/** Our gateway says when to come again where that may help; its other failures come after two attempts of its own. */
function isPassing({ status, headers }) {
  return PASSING.has(status) && (headers.has("Retry-After") || !headers.has("X-Gateway-Cause"));
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
