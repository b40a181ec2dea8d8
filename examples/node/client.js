// Calls to bridgebook from Node.js, straight from the .proto files: nothing is generated.

import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

export const { status } = grpc;

const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));
const FILES = ['workflow', 'fsm', 'bridge_state', 'registry', 'admin', 'server'];

const CALL_MS = 10_000; // The deadline of one attempt.
const FIRST_BACKOFF_MS = 100; // Doubled after each failure, up to the longest.
const LONGEST_BACKOFF_MS = 2_000;

const definition = loader.loadSync(
  FILES.map((name) => `bridgebook/v1/${name}_service.proto`),
  // Fields under their names in the .proto, and int64 as text: a double has only 53 bits.
  { includeDirs: [PROTO], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
);
const { v1 } = grpc.loadPackageDefinition(definition).bridgebook;

/** How many milliseconds to wait at least before the same call again; null if that is no use. */
function retryAfter(error) {
  // bridgebook says so in a trailer, beside the RetryInfo in the status's details.
  const [pushback] = error.metadata?.get('grpc-retry-pushback-ms') ?? [];
  if (pushback !== undefined) return Number(pushback);
  // Without that it did not come from bridgebook but from the way there. A deadline leaves
  // open whether a write was made; every write here may be sent again.
  const isTransient = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(error.code);
  return isTransient ? 0 : null;
}

/** TLS if BRIDGEBOOK_TLS_CA names the roots to trust (empty: those of Node.js). */
function credentials() {
  const roots = process.env.BRIDGEBOOK_TLS_CA;
  if (roots === undefined) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(roots ? readFileSync(roots) : null);
}

/** Shows a token with every call, over TLS or not. */
const bearer = (credential) => (options, nextCall) =>
  new grpc.InterceptingCall(nextCall(options), {
    start(metadata, listener, next) {
      metadata.set('authorization', `Bearer ${credential}`);
      next(metadata, listener);
    },
  });

/** The services of one bridgebook. */
export class Bridgebook {
  /** Every pause between two attempts ends at once when `stop`, an AbortSignal, is aborted. */
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
      const done = (error, answer) => (error ? reject(error) : resolve(answer));
      service[method](request, { deadline: Date.now() + CALL_MS }, done);
    });
  }

  /**
   * Makes a call until it is answered, however long bridgebook is away. Throws what fails for
   * good, and whatever fails once it is time to stop.
   */
  async call(service, method, request) {
    for (let backoff = FIRST_BACKOFF_MS; ; backoff = Math.min(2 * backoff, LONGEST_BACKOFF_MS)) {
      try {
        return await this.attempt(service, method, request);
      } catch (error) {
        const least = retryAfter(error);
        if (least === null || this.stop?.aborted) throw error;
        // The random part keeps many clients from coming back all at once.
        await this.pause(least + Math.random() * backoff);
      }
    }
  }

  /** Waits so many milliseconds, or until it is time to stop. */
  async pause(milliseconds) {
    await sleep(milliseconds, undefined, { signal: this.stop }).catch(() => {});
  }

  /** Lets go of all connections. */
  close() {
    for (const client of [this.workflows, this.fsm, this.bridges, this.registry, this.admin]) client.close();
  }
}

/** The milliseconds of a google.protobuf.Duration. */
export function toMilliseconds({ seconds, nanos }) {
  return Number(seconds) * 1_000 + nanos / 1_000_000;
}

/** Ends at the first SIGTERM or SIGINT. A second one kills, as if nobody listened. */
export function stopSignal() {
  const stop = new AbortController();
  setMaxListeners(0, stop.signal); // As many as there are calls that wait to be tried again.
  for (const name of ['SIGTERM', 'SIGINT']) process.once(name, () => stop.abort());
  return stop.signal;
}
