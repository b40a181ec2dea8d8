// A node's place in the registry: registers it, keeps it alive, and takes it out again.

import { status, toMilliseconds } from './client.js';

const TTL_SECONDS = 30; // How long it counts as alive after a heartbeat.
const ODD_PAUSE_MS = 2000; // How long to wait after a failure that nobody foresaw.

export class Presence {
  /** `node` has namespace, node_id, node_type and node_version. */
  constructor(book, node) {
    this.book = book;
    this.node = node;
  }

  /** Registers, and answers in how many milliseconds the first heartbeat is due. */
  async register() {
    const request = { ...this.node, heartbeat_ttl: { seconds: TTL_SECONDS } };
    const answer = await this.book.call(this.book.registry, 'RegisterNode', request);
    return toMilliseconds(answer.next_heartbeat_in);
  }

  /**
   * Sends heartbeats until it is time to stop, the first one in so many milliseconds. Throws if
   * the node may not be registered any more.
   */
  async beat(due) {
    const { namespace, node_id } = this.node;
    for (;;) {
      await this.book.pause(due);
      if (this.book.stop.aborted) return;
      try {
        const answer = await this.book.call(this.book.registry, 'Heartbeat', { namespace, heartbeat: { node_id } });
        due = toMilliseconds(answer.next_heartbeat_in);
      } catch (error) {
        if (this.book.stop.aborted) return;
        // No time mends these. A node that ends because of anything else would make a small
        // trouble a large one.
        if ([status.ALREADY_EXISTS, status.INVALID_ARGUMENT].includes(error.code)) throw error;
        if (error.code === status.NOT_FOUND) {
          // Somebody removed the row: the node is still here, so it says so again.
          due = await this.register();
        } else {
          console.log(`no heartbeat this time: ${error.message}`);
          due = ODD_PAUSE_MS;
        }
      }
    }
  }

  /** Takes the node out of the registry. */
  async deregister() {
    const { namespace, node_id } = this.node;
    await this.book.call(this.book.registry, 'DeregisterNode', { namespace, node_id, allow_missing: true });
  }
}
