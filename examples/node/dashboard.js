#!/usr/bin/env node
// Prints a dashboard: workflows, nodes, and the totals of a namespace's bridges.
//
// With --wait SECONDS it first waits, for at most that long, until the bridges have counted
// every completed workflow. The exit status is 1 if they have not.

import { parseArgs } from 'node:util';
import { Bridgebook, stopSignal, toMilliseconds } from './client.js';

const NODE_TYPES = ['orchestrator', 'reducer', 'registry'];
const POLL_INTERVAL_MS = 200;

/** Reads everything that the dashboard shows. */
async function read(client, namespace) {
  const health = await client.call(client.admin, 'GetSystemHealth', {});
  const bridges = await client.call(client.bridges, 'GetBridgeStats', { namespace });
  const found = await Promise.all(NODE_TYPES.map((type) => discover(client, namespace, type)));
  return { ...health, bridges, found: found.flat() };
}

/** Returns the usable nodes of a type that the namespace owns. */
async function discover(client, namespace, node_type) {
  const nodes = [];
  let page_token = '';
  do {
    const request = { namespace, node_type, owner: namespace, page_token };
    const page = await client.call(client.registry, 'DiscoverNodes', request);
    nodes.push(...page.nodes);
    page_token = page.next_page_token;
  } while (page_token !== '');
  return nodes;
}

/** Reads until the bridges have counted every completed workflow, or until `deadline`. */
async function readWhenCounted(client, namespace, deadline) {
  for (;;) {
    const all = await read(client, namespace);
    const isCounted = Number(all.workflows.completed) > 0 && Number(all.bridges.total_workflows) >= Number(all.workflows.completed);
    if (isCounted || Date.now() >= deadline || client.stop.aborted) return { all, isCounted };
    await client.pause(POLL_INTERVAL_MS);
  }
}

/** Formats a line: a name, then numbers. */
function line(name, numbers) {
  const parts = Object.entries(numbers).map(([label, number]) => `${number} ${label}`);
  return `${name.padEnd(10)} ${parts.join(', ')}`;
}

function show({ workflows, nodes, bridges, found }) {
  const { total, completed, failed, in_progress, pending, cancelled } = workflows;
  console.log(line('workflows', { total, completed, failed, 'in progress': in_progress, pending, cancelled }));
  const { healthy, degraded, unhealthy, stale } = nodes;
  console.log(line('nodes', { total: nodes.total, healthy, degraded, unhealthy, stale }));
  const { bridge_count, total_workflows, total_items } = bridges;
  console.log(line('bridges', { total: bridge_count, workflows: total_workflows, items: total_items }));
  for (const node of found) {
    const ttl = toMilliseconds(node.heartbeat_ttl) / 1_000;
    console.log(`  ${node.node_type} ${node.node_id} ${node.node_version}, alive for ${ttl} s after each heartbeat`);
  }
}

const { values } = parseArgs({
  options: {
    address: { type: 'string', default: process.env.BRIDGEBOOK_ADDRESS ?? 'localhost:50051' },
    namespace: { type: 'string', default: 'demo' },
    wait: { type: 'string' },
  },
});
const client = new Bridgebook(values.address, stopSignal());
try {
  const deadline = Date.now() + Number(values.wait ?? 0) * 1_000;
  const { all, isCounted } = await readWhenCounted(client, values.namespace, deadline);
  show(all);
  if (values.wait !== undefined && !isCounted) {
    console.error('dashboard: the bridges have not counted every completed workflow');
    process.exitCode = 1;
  }
} catch (error) {
  console.error(`dashboard: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
