/** System programs the tasks start, and the Debian packages that bring them. */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { Refusal, runStep } from './run.mjs';

/** `tool` is a name to find in PATH, or a path. */
const demoTools = [
  { tool: 'ip', package: 'iproute2' },
  { tool: 'nft', package: 'nftables' },
  { tool: 'iptables', package: 'iptables' },
  { tool: 'ip6tables', package: 'iptables' },
  { tool: 'conntrack', package: 'conntrack' },
  { tool: 'nsenter', package: 'util-linux' },
  { tool: 'tcpdump', package: 'tcpdump' },
  { tool: 'openssl', package: 'openssl' },
];

const serviceTools = [
  ...demoTools,
  { tool: 'ipset', package: 'ipset' },
  { tool: 'ipvsadm', package: 'ipvsadm' },
];

/** What the virtual machine needs besides; it has this machine's programs. */
const machineTools = [
  { tool: 'wg', package: 'wireguard-tools' },
  { tool: 'qemu-system-x86_64', package: 'qemu-system-x86' },
];

const testTools = [
  ...serviceTools,
  { tool: 'ping', package: 'iputils-ping' },
  { tool: 'setpriv', package: 'util-linux' },
  { tool: 'iperf3', package: 'iperf3' },
  { tool: 'etcd', package: 'etcd-server' },
  { tool: 'etcdctl', package: 'etcd-client' },
  { tool: 'bird', package: 'bird2' },
  { tool: 'vtysh', package: 'frr' },
  { tool: '/usr/lib/cni/bridge', package: 'containernetworking-plugins' },
  // Container runtimes: the tests start their own, with a root of its own.
  { tool: 'containerd', package: 'containerd' },
  { tool: 'ctr', package: 'containerd' },
  { tool: 'runc', package: 'runc' },
  { tool: 'podman', package: 'podman' },
];

/** Where systemd runs, the package would bring up a firewall on the machine with its next boot. */
const bootsServices = existsSync('/run/systemd/system');
const firewallTools = bootsServices ? [] : [{ tool: 'firewalld', package: 'firewalld' }];

/** What each task cannot do without, and what it does less without. */
const needs = {
  demo: { tools: demoTools, wishes: [] },
  test: { tools: [...testTools, ...firewallTools], wishes: machineTools },
  vm: { tools: [...serviceTools, ...machineTools], wishes: [] },
};

/**
 * Installs what `task` needs and this machine lacks.
 *
 * @throws {Refusal} When a tool is still missing afterwards
 */
export function installTools(task, env, say) {
  const { tools, wishes } = needs[task];
  if (wishes.every(({ tool }) => isInstalled(tool, env))) {
    install(task, tools, env, say);
    return;
  }
  try {
    install(task, [...tools, ...wishes], env, say);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    install(task, tools, env, say);
    say(`tests in a virtual machine are skipped: ${error.message}`);
  }
}

function install(task, tools, env, say) {
  const missing = tools.filter(({ tool }) => !isInstalled(tool, env));
  if (missing.length === 0) return;
  const names = missing.map(({ tool }) => tool).join(', ');
  const packages = [...new Set(missing.map((m) => m.package))];
  if (!isInstalled('apt-get', env)) {
    throw new Refusal(
      `cannot run ${task} without ${names}: this machine has no apt-get to install ${packages.join(' ')}`,
    );
  }
  say(`installing Debian packages for ${names}: ${packages.join(' ')}`);
  const options = { env: { ...env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' } };
  const wait = ['-o', 'DPkg::Lock::Timeout=120'];
  updateLists(`install ${names}`, ['apt-get', ...wait, '-q', 'update'], options);
  // What the packages bring runs in namespaces of the tests only: a routing daemon on the machine
  // itself would take its routes in hand.
  const path = [join(import.meta.dirname, 'no-services'), '/usr/sbin:/usr/bin:/sbin:/bin'].join(
    ':',
  );
  runStep(
    `install ${names}`,
    // Not at the cost of what the machine has: containerd of another origin, say.
    [
      'apt-get',
      ...wait,
      '-q',
      '-y',
      '--no-install-recommends',
      '--no-remove',
      '-o',
      `DPkg::Path=${path}`,
      'install',
      ...packages,
    ],
    options,
  );
  const still = missing.filter(({ tool }) => !isInstalled(tool, env)).map(({ tool }) => tool);
  if (still.length > 0) {
    throw new Refusal(
      `cannot run ${task} without ${still.join(', ')}: not there after installing ${packages.join(' ')}`,
    );
  }
}

/** apt-get waits for others who install, not for others who read the lists. */
function updateLists(purpose, command, options) {
  for (let seconds = 0; ; seconds++) {
    try {
      return runStep(purpose, command, options);
    } catch (error) {
      const isBusy = /Could not get lock \S*\/lists\/lock/.test(error.message);
      if (!isBusy || seconds >= listsSeconds) throw error;
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  }
}

const listsSeconds = 120;

function isInstalled(tool, env) {
  if (isAbsolute(tool)) return existsSync(tool);
  return env.PATH.split(delimiter).some((folder) => isExecutable(join(folder, tool)));
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
