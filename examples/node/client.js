// Calls bridgebook with retries. Loads the .proto files at the start, so no code is generated.

import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

export const { status } = grpc;

const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));
const FILES = ['workflow', 'fsm', 'bridge_state', 'registry', 'admin', 'server'];

const CALL_MS = 10_000; // Deadline of one attempt.
const FIRST_BACKOFF_MS = 100; // Doubled after each failure, up to LONGEST_BACKOFF_MS.
const LONGEST_BACKOFF_MS = 2_000;

const definition = loader.loadSync(
  FILES.map((name) => `bridgebook/v1/${name}_service.proto`),
  // Keeps the field names of the .proto files. Reads int64 as text, because a double has only 53 bits.
  { includeDirs: [PROTO], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
);
const { v1 } = grpc.loadPackageDefinition(definition).bridgebook;

/** Returns the minimum delay before a retry in milliseconds, or null if a retry cannot help. */
export function retryAfter(error) {
  // bridgebook sends the delay in this trailer, as well as in the RetryInfo of the status. A negative
  // one forbids the retry: a statement took too long (STATEMENT_TIMEOUT), and would again.
  const [pushback] = error.metadata?.get('grpc-retry-pushback-ms') ?? [];
  if (pushback !== undefined) return Number(pushback) >= 0 ? Number(pushback) : null;
  // Without it the error comes from the network or a proxy, or a deadline passed, so that the outcome
  // is unknown. A retry is safe because every write here is idempotent.
  const isTransient = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(error.code);
  return isTransient ? 0 : null;
}

/** Uses TLS if BRIDGEBOOK_TLS_CA is set: a file with root certificates (empty: those of Node.js). */
function credentials() {
  const roots = process.env.BRIDGEBOOK_TLS_CA;
  if (roots === undefined) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(roots ? readFileSync(roots) : null);
}

/** Adds a token to every call, with and without TLS. */
const bearer = (credential) => (options, nextCall) =>
  new grpc.InterceptingCall(nextCall(options), {
    start(metadata, listener, next) {
      metadata.set('authorization', `Bearer ${credential}`);
      next(metadata, listener);
    },
  });

/** A client for all services of a bridgebook. */
export class Bridgebook {
  /** Aborting `stop`, an AbortSignal, ends every pause between two attempts at once. */
  constructor(address, stop) {
    this.stop = stop;
    const options = {
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
      interceptors: process.env.BRIDGEBOOK_TOKEN ? [bearer(process.env.BRIDGEBOOK_TOKEN)] : [],
    };
    const client = (Service) => new Service(address, credentials(), options);
    this.workflows = client(v1.WorkflowService);
    this.fsm = client(v1.FsmService);
    this.bridges = client(v1.BridgeStateService);
    this.registry = client(v1.RegistryService);
    this.admin = client(v1.AdminService);
  }

  /** Makes one attempt at a call. */
  attempt(service, method, request) {
    return new Promise((resolve, reject) => {
      const done = (error, response) => (error ? reject(error) : resolve(response));
      service[method](request, { deadline: Date.now() + CALL_MS }, done);
    });
  }

  /**
   * Retries a call with exponential backoff, without a time limit. Throws permanent errors, and
   * every error after `stop` is aborted.
   */
  async call(service, method, request) {
    for (let backoff = FIRST_BACKOFF_MS; ; backoff = Math.min(2 * backoff, LONGEST_BACKOFF_MS)) {
      try {
        return await this.attempt(service, method, request);
      } catch (error) {
        const least = retryAfter(error);
        if (least === null || this.stop?.aborted) throw error;
        // Jitter keeps many clients from retrying at the same time.
        await this.pause(least + Math.random() * backoff);
      }
    }
  }

  /** Waits for this many milliseconds, or until `stop` is aborted. */
  async pause(milliseconds) {
    await sleep(milliseconds, undefined, { signal: this.stop }).catch(() => {});
  }

  /** Closes all connections. */
  close() {
    for (const client of [this.workflows, this.fsm, this.bridges, this.registry, this.admin]) client.close();
  }
}

/** Converts a google.protobuf.Duration to milliseconds. */
export function toMilliseconds({ seconds, nanos }) {
  return Number(seconds) * 1_000 + nanos / 1_000_000;
}

/** Returns a signal that the first SIGTERM or SIGINT aborts. A second one kills the process. */
export function stopSignal() {
  const stop = new AbortController();
  setMaxListeners(0, stop.signal); // One listener per call that waits for a retry.
  for (const name of ['SIGTERM', 'SIGINT']) process.once(name, () => stop.abort());
  return stop.signal;
}
