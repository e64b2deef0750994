/** What to do with a cluster that was left running. */
import type { Cluster } from './cluster.ts';
import { machineKubeconfig, nodeKubeconfig } from './layout.ts';

export function keptText({ run, topology }: Cluster): string {
  const kubeconfig = machineKubeconfig(run);
  const { node1, outside } = topology.hosts;
  return `
The cluster keeps running. Its API server is a development tool on 127.0.0.1; the file below has a
token for it.

  export KUBECONFIG=${kubeconfig}
  kubectl get nodes,pods,services,endpointslices -o wide
  kubectl get pods -w
  kubectl run another --image=any --labels=app=echo       # a fourth endpoint of Service echo
  kubectl delete pod echo-2

  ip netns exec ${node1.namespace} ip route             # the way to the other nodes' pods
  ip netns exec ${node1.namespace} iptables -t nat -S KUBE-SERVICES
  ip netns exec ${topology.underlay} tcpdump -ni br-a udp port 8472
  echo hello | ip netns exec ${outside.namespace} nc -w 1 ${node1.ip} 30080

Logs are in ${run.path}/logs; the nodes' own kubeconfig is ${nodeKubeconfig(run)}.
Remove it all with: npm run demo -- --down`;
}
