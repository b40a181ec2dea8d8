// Registers a node, sends its heartbeats, and deregisters it.

import { status, toMilliseconds } from './client.js';

const TTL_SECONDS = 30; // How long the node counts as alive after a heartbeat.
const UNKNOWN_ERROR_PAUSE_MS = 2000; // The pause after an error that is not known to be temporary.

export class Registration {
  /** `node` has namespace, node_id, node_type and node_version. */
  constructor(client, node) {
    this.client = client;
    this.node = node;
  }

  /** Registers the node. Returns the time until the first heartbeat, in milliseconds. */
  async register() {
    const request = { ...this.node, heartbeat_ttl: { seconds: TTL_SECONDS } };
    const response = await this.client.call(this.client.registry, 'RegisterNode', request);
    return toMilliseconds(response.next_heartbeat_in);
  }

  /**
   * Sends heartbeats until `stop` is aborted, the first one in `due` milliseconds. Throws if
   * the service rejects the node for good.
   */
  async sendHeartbeats(due) {
    const { namespace, node_id } = this.node;
    for (;;) {
      await this.client.pause(due);
      if (this.client.stop.aborted) return;
      try {
        const response = await this.client.call(this.client.registry, 'Heartbeat', { namespace, heartbeat: { node_id } });
        due = toMilliseconds(response.next_heartbeat_in);
      } catch (error) {
        if (this.client.stop.aborted) return;
        // Retrying cannot help if the name is taken or the request is invalid. Exiting on any
        // other error would turn a small outage into a larger one.
        if ([status.ALREADY_EXISTS, status.INVALID_ARGUMENT].includes(error.code)) throw error;
        if (error.code === status.NOT_FOUND) {
          // The node was removed from the registry, but it is still running.
          due = await this.register();
        } else {
          console.log(`heartbeat failed: ${error.message}`);
          due = UNKNOWN_ERROR_PAUSE_MS;
        }
      }
    }
  }

  /** Deregisters the node. */
  async deregister() {
    const { namespace, node_id } = this.node;
    await this.client.call(this.client.registry, 'DeregisterNode', { namespace, node_id, allow_missing: true });
  }
}
