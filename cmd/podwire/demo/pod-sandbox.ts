/** One pod on this machine: its network namespace, its network, and the program inside. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { systemClock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { agentSocket, podAgent } from './agent-client.ts';
import {
  attachPod,
  detachPod,
  readNetwork,
  type AttachedPod,
  type CniAttachment,
  type CniHost,
} from './cni-runtime.ts';
import { addNamespace, deleteNamespace, namespacePath } from './namespaces.ts';
import type { PodRecord } from './pod-record.ts';
import { startProgram, stopProgram, type Program } from './processes.ts';
import type { RunFolder } from './run-folder.ts';
import { namespacePrefix } from './topology.ts';
import { waitFor } from './wait.ts';

/** What a pod is started with: where its node is, and the program every container stands for. */
export interface SandboxHost {
  readonly run: RunFolder;
  readonly cni: CniHost;
  /** Command of the agent program, before its own arguments. */
  readonly agent: readonly [string, ...string[]];
}

export interface PodSandbox {
  readonly containerId: string;
  readonly podIPs: readonly string[];
  /** Stops the program, takes the network down and removes the namespace. */
  stop(): Promise<void>;
}

const defaultPort = 8080;
const programStartMs = 60_000;

/**
 * Starts a pod in the order of a container runtime: namespace, network, program. What fails on the
 * way is taken back.
 *
 * @throws {AgentError} NetworkNotReady while the node's agent has not configured CNI
 */
export async function startSandbox(host: SandboxHost, pod: PodRecord): Promise<PodSandbox> {
  const configuration = readNetwork(host.cni.confDir);
  if (configuration === undefined) {
    throw new AgentError(
      'NetworkNotReady',
      `Cannot start pod ${pod.name}: no network configuration in ${host.cni.confDir}`,
    );
  }
  const namespace = `${namespacePrefix(host.run.id)}pod-${pod.uid.slice(0, 8)}`;
  const attachment = attachmentOf(pod, namespace);
  await addNamespace(namespace);
  try {
    const attached = await attachPod(host.cni, configuration, attachment);
    try {
      const program = await startAgent(host, pod, namespace);
      return sandbox(host, { namespace, attachment, attached, program });
    } catch (error) {
      await detachPod(host.cni, attached, attachment);
      throw error;
    }
  } catch (error) {
    await deleteNamespace(namespace);
    throw error;
  }
}

function attachmentOf(pod: PodRecord, namespace: string): CniAttachment {
  const ports = pod.containers.flatMap((container) => container.ports);
  const portMappings = ports
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIP }) => ({
      hostPort,
      containerPort,
      protocol: protocol.toLowerCase(),
      hostIP,
    }));
  return {
    // As container runtimes do: another identifier for each attempt.
    containerId: randomBytes(32).toString('hex'),
    netns: namespacePath(namespace),
    pod,
    capabilityArgs: {
      'io.kubernetes.cri.pod-annotations': pod.annotations,
      ...(portMappings.length === 0 ? {} : { portMappings }),
    },
  };
}

async function startAgent(host: SandboxHost, pod: PodRecord, namespace: string): Promise<Program> {
  const name = podAgent(pod.namespace, pod.name);
  const control = agentSocket(host.run.path, name);
  const port =
    pod.containers.flatMap((container) => container.ports)[0]?.containerPort ?? defaultPort;
  const [file, ...args] = host.agent;
  const program = startProgram(host.run, {
    name,
    namespace,
    file,
    args: [...args, '--name', pod.name, '--control', control, '--port', String(port)],
  });
  await agentUp(program, control);
  return program;
}

/** Resolves once an agent takes requests, which is the last thing it does when it starts. */
export async function agentUp(program: Program, control: string): Promise<void> {
  const wait = { clock: systemClock, withinMs: programStartMs };
  await waitFor(`answer from ${program.name}, see ${program.logPath}`, wait, async () => {
    if (!program.hasEnded()) return existsSync(control) || undefined;
    const how = await program.ended;
    throw new AgentError(
      'ProgramFailed',
      `Cannot start ${program.name}: ${how}, see ${program.logPath}`,
    );
  });
}

interface SandboxParts {
  readonly namespace: string;
  readonly attachment: CniAttachment;
  readonly attached: AttachedPod;
  readonly program: Program;
}

function sandbox(host: SandboxHost, parts: SandboxParts): PodSandbox {
  const { namespace, attachment, attached, program } = parts;
  return {
    containerId: attachment.containerId,
    podIPs: (attached.result.ips ?? []).map(({ address }) => address.replace(/\/.*$/, '')),
    stop: async () => {
      await stopProgram(program);
      await detachPod(host.cni, attached, attachment);
      await deleteNamespace(namespace);
    },
  };
}
