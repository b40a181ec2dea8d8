#!/usr/bin/env node
// Adds all completed workflows of a namespace to the totals of a bridge, each exactly once.
//
// A minimal bridge node. It is safe to kill and to run again, because:
//
// 1. Each workflow is its own batch, with a batch_id derived from the workflow's id. bridgebook
//    applies a batch once, however often it is sent. There is no cursor that could be lost.
// 2. A workflow that started long ago may complete only now. So every round reads the whole
//    list and skips what this process has counted already.
// 3. A new process sends everything again. bridgebook returns applied = false for batches that
//    it has applied already.
//
// These are many calls, but they run concurrently, and the service commits calls that arrive
// together in one transaction.

import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { v5 as uuidv5 } from 'uuid';
import { Bridgebook, status, stopSignal } from './client.js';
import { Registration } from './registration.js';

// The root of all derived ids. Every program has its own root, so that ids never collide.
const ID_ROOT = '0b7f3d0e-5e0c-4a3e-8a53-0d8e4c1f7a26';

const PAGE_SIZE = 1000; // The largest page that bridgebook returns.

// The state machine of bridges. It applies to all bridges of the namespace.
const MACHINE = {
  entity_type: 'bridge',
  initial_state: 'IDLE',
  moves: [
    { from_state: 'IDLE', transition_event: 'begin', to_state: 'AGGREGATING' },
    { from_state: 'AGGREGATING', transition_event: 'finish', to_state: 'IDLE' },
  ],
};

class Reducer {
  constructor(client, namespace, nodeId, jobs) {
    this.client = client;
    this.namespace = namespace;
    this.bridgeId = uuidv5(`bridge\n${namespace}\n${nodeId}`, ID_ROOT);
    this.jobs = jobs;
    this.counted = new Set(); // The ids of the workflows that are known to be counted.
  }

  /** Creates the machine and the bridge, unless they exist. */
  async prepare() {
    await this.client.call(this.client.fsm, 'PutMachine', { namespace: this.namespace, ...MACHINE });
    await this.moveTo('IDLE');
  }

  /** Moves the bridge to a state, unless it is in it. Returns the bridge. */
  async moveTo(current_fsm_state) {
    const { namespace, bridgeId: bridge_id } = this;
    const request = { namespace, bridge_id, current_fsm_state };
    const response = await this.client.call(this.client.bridges, 'UpsertBridgeState', request);
    return response.bridge_state;
  }

  /** Reads all completed workflows and counts the new ones. */
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

  /** Yields the pages of completed workflows, newest first. */
  async *completed() {
    let page_token = '';
    do {
      const page = await this.client.call(this.client.workflows, 'ListWorkflows', {
        namespace: this.namespace,
        states: ['WORKFLOW_STATE_COMPLETED'],
        page_size: PAGE_SIZE,
        page_token,
      });
      yield page.workflows;
      page_token = page.next_page_token;
    } while (page_token !== '' && !this.client.stop.aborted);
  }

  /** Counts workflows with concurrent calls. Returns the number of those not counted before. */
  async count(summaries) {
    const waiting = summaries.values();
    let added = 0;
    const worker = async () => {
      for (const summary of waiting) {
        if (this.client.stop.aborted) return;
        if (await this.accumulate(summary)) added += 1;
        this.counted.add(summary.workflow.id);
      }
    };
    await Promise.all(Array.from({ length: this.jobs }, worker));
    return added;
  }

  /** Returns the number of steps of a workflow. The summary has it up to 1000 steps. */
  async steps({ workflow, step_count, has_more_steps }) {
    if (!has_more_steps) return step_count;
    let count = 0;
    let page_token = '';
    do {
      const page = await this.client.call(this.client.workflows, 'ListSteps', {
        namespace: this.namespace,
        workflow_id: workflow.id,
        page_size: PAGE_SIZE,
        page_token,
      });
      count += page.steps.length;
      page_token = page.next_page_token;
    } while (page_token !== '');
    return count;
  }

  /** Adds one workflow to the bridge. Returns whether it was not counted before. */
  async accumulate(summary) {
    const { workflow } = summary;
    try {
      const response = await this.client.call(this.client.bridges, 'AccumulateBridgeState', {
        namespace: this.namespace,
        bridge_id: this.bridgeId,
        batch_id: uuidv5(workflow.id, ID_ROOT),
        workflows_processed: 1,
        items_aggregated: await this.steps(summary),
      });
      return response.applied;
    } catch (error) {
      // The workflow was counted when it had fewer steps. Steps may be appended at any time.
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
  if (!Number.isInteger(jobs) || jobs < 1) throw new Error(`--jobs: expected a whole number of 1 or more, got ${values.jobs}`);
  if (!(every > 0 && every <= 86_400)) throw new Error(`--every: expected more than 0 and at most 86400 seconds, got ${values.every}`);
  const nodeId = values['node-id'] ?? `reducer/${values.namespace}/${hostname()}`;
  return { ...values, jobs, every, nodeId };
}

/** Runs rounds until `stop` is aborted. */
async function work(reducer, every) {
  const { client } = reducer;
  try {
    await reducer.prepare();
    while (!client.stop.aborted) {
      await reducer.round();
      await client.pause(every * 1_000);
    }
  } catch (error) {
    // Stopped during an outage of bridgebook: the next process continues.
    if (!client.stop.aborted) throw error;
  }
}

async function main({ address, namespace, nodeId, jobs, every }) {
  const client = new Bridgebook(address, stopSignal());
  const node = { namespace, node_id: nodeId, node_type: 'reducer', node_version: '1.0.0' };
  const registration = new Registration(client, node);
  const due = await registration.register();
  console.log(`registered as ${nodeId}`);
  // Both end when `stop` is aborted. A failure of either ends the program.
  await Promise.all([work(new Reducer(client, namespace, nodeId, jobs), every), registration.sendHeartbeats(due)]);
  await registration.deregister();
  console.log('deregistered');
  client.close();
}

/** Prints an error and exits, so that nothing keeps running in the background. */
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
