/** The daemon's resident mode alone, without a cluster: `node cni-daemon.ts RUN-DIR`. */
import { once } from 'node:events';
import { startCniServer } from '#cmd/podwire-node/cni-server.ts';
import { createLogger } from '#pkg/log/logger.ts';

const [runDir = ''] = process.argv.slice(2);
await using _ = await startCniServer(runDir, createLogger('cni-daemon', 'info'));
process.stdout.write('ready\n');
await once(process, 'SIGTERM');
