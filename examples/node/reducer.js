#!/usr/bin/env node
// Adds up all completed workflows of a namespace, each exactly once.
//
// A bridge node in small. What makes it safe to kill and to run again:
//
// 1. Each workflow is a batch of its own, and its batch_id is derived from the workflow's id.
//    bridgebook adds a batch once however often it is sent, so there is no cursor that could
//    be lost or be ahead of what was counted.
// 2. A workflow that began long ago may complete only now. So every round reads the whole
//    list, and what this process has counted already is left out.
// 3. A new process knows nothing and sends everything again; bridgebook answers what is
//    counted already with applied = false.
//
// That is many calls, but they are under way at the same time, and the service puts calls
// that arrive together into one commit.

import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { v5 as uuidv5 } from 'uuid';
import { Bridgebook, status, stopSignal } from './client.js';
import { Presence } from './presence.js';

// The root of all derived ids. Another program picks another root, so that their ids never meet.
const ID_ROOT = '0b7f3d0e-5e0c-4a3e-8a53-0d8e4c1f7a26';

const PAGE_SIZE = 1000; // The most that bridgebook puts on a page.

// The bridge's own life. All bridges of the namespace move by it.
const MACHINE = {
  entity_type: 'bridge',
  initial_state: 'IDLE',
  moves: [
    { from_state: 'IDLE', transition_event: 'begin', to_state: 'AGGREGATING' },
    { from_state: 'AGGREGATING', transition_event: 'finish', to_state: 'IDLE' },
  ],
};

class Reducer {
  constructor(book, namespace, nodeId, jobs) {
    this.book = book;
    this.namespace = namespace;
    this.bridgeId = uuidv5(`bridge\n${namespace}\n${nodeId}`, ID_ROOT);
    this.jobs = jobs;
    this.counted = new Set(); // The ids of the workflows that this process has seen counted.
  }

  /** Makes the machine and the bridge, or finds them as an earlier process left them. */
  async prepare() {
    await this.book.call(this.book.fsm, 'PutMachine', { namespace: this.namespace, ...MACHINE });
    await this.moveTo('IDLE');
  }

  /** Moves the bridge, if it is not there already, and answers it as it is now. */
  async moveTo(current_fsm_state) {
    const { namespace, bridgeId: bridge_id } = this;
    const request = { namespace, bridge_id, current_fsm_state };
    const answer = await this.book.call(this.book.bridges, 'UpsertBridgeState', request);
    return answer.bridge_state;
  }

  /** Reads all completed workflows, and counts those that are not counted yet. */
  async round() {
    const before = this.counted.size;
    let added = 0;
    for await (const page of this.completed()) {
      const fresh = page.filter(({ workflow }) => !this.counted.has(workflow.id));
      if (fresh.length === 0) continue;
      await this.moveTo('AGGREGATING');
      added += await this.count(fresh);
    }
    if (this.counted.size === before) return;
    const bridge = await this.moveTo('IDLE');
    const { total_workflows_processed: workflows, total_items_aggregated: items } = bridge;
    console.log(`${this.counted.size - before} workflows, ${added} new; counted ${workflows} with ${items} items`);
  }

  /** The pages of completed workflows, newest first. */
  async *completed() {
    let page_token = '';
    do {
      const page = await this.book.call(this.book.workflows, 'ListWorkflows', {
        namespace: this.namespace,
        states: ['WORKFLOW_STATE_COMPLETED'],
        page_size: PAGE_SIZE,
        page_token,
      });
      yield page.workflows;
      page_token = page.next_page_token;
    } while (page_token !== '' && !this.book.stop.aborted);
  }

  /** Counts workflows, so many at a time, and answers how many nobody had counted before. */
  async count(summaries) {
    const waiting = summaries.values();
    let added = 0;
    const worker = async () => {
      for (const summary of waiting) {
        if (this.book.stop.aborted) return;
        if (await this.accumulate(summary)) added += 1;
        this.counted.add(summary.workflow.id);
      }
    };
    await Promise.all(Array.from({ length: this.jobs }, worker));
    return added;
  }

  /** Adds one workflow to the bridge, and answers whether it was new there. */
  async accumulate({ workflow, step_count }) {
    try {
      const answer = await this.book.call(this.book.bridges, 'AccumulateBridgeState', {
        namespace: this.namespace,
        bridge_id: this.bridgeId,
        batch_id: uuidv5(workflow.id, ID_ROOT),
        workflows_processed: 1,
        items_aggregated: step_count,
      });
      return answer.applied;
    } catch (error) {
      // It was counted when it had fewer steps; steps may be appended at any time.
      if (error.code === status.ALREADY_EXISTS) return false;
      throw error;
    }
  }
}

function options() {
  const { values } = parseArgs({
    options: {
      address: { type: 'string', default: process.env.BRIDGEBOOK_ADDRESS ?? 'localhost:50051' },
      namespace: { type: 'string', default: 'demo' },
      'node-id': { type: 'string' },
      jobs: { type: 'string', default: '32' },
      every: { type: 'string', default: '1' },
    },
  });
  const jobs = Number(values.jobs);
  const every = Number(values.every);
  if (!Number.isInteger(jobs) || jobs < 1) throw new Error('--jobs has to be 1 or more');
  if (!(every > 0 && every <= 86_400)) throw new Error('--every has to be more than 0 and at most 86400 seconds');
  const nodeId = values['node-id'] ?? `reducer/${values.namespace}/${hostname()}`;
  return { ...values, jobs, every, nodeId };
}

/** Works until it is told to stop. */
async function work(reducer, every) {
  const { book } = reducer;
  try {
    await reducer.prepare();
    while (!book.stop.aborted) {
      await reducer.round();
      await book.pause(every * 1_000);
    }
  } catch (error) {
    // Told to stop while bridgebook was away: the next process goes on from here.
    if (!book.stop.aborted) throw error;
  }
}

async function main({ address, namespace, nodeId, jobs, every }) {
  const book = new Bridgebook(address, stopSignal());
  const node = { namespace, node_id: nodeId, node_type: 'reducer', node_version: '1.0.0' };
  const presence = new Presence(book, node);
  const due = await presence.register();
  console.log(`registered as ${nodeId}`);
  // Both end when it is time to stop, and either one's failure is the end.
  await Promise.all([work(new Reducer(book, namespace, nodeId, jobs), every), presence.beat(due)]);
  await presence.deregister();
  console.log('deregistered');
  book.close();
}

/** Says what went wrong, and exits: nothing may go on behind it. */
function fail(error, exitStatus) {
  console.error(`reducer: ${error.message}`);
  process.exit(exitStatus);
}

let values;
try {
  values = options();
} catch (error) {
  fail(error, 2);
}
main(values).catch((error) => fail(error, 1));
