/** A kubeconfig for one of the server's tokens. */
import { stringify } from 'yaml';

export interface KubeconfigSubject {
  /** https://127.0.0.1:6443 */
  readonly server: string;
  /** PEM text of the certificate authority; undefined for plain HTTP or the system's own. */
  readonly certificateAuthority?: string;
  /** Bearer token. */
  readonly token?: string;
  /** Name of the cluster, the context and the user. */
  readonly name?: string;
  /** Default namespace of the context. */
  readonly namespace?: string;
}

/** The kubeconfig as YAML text. It holds the token: write it with mode 0600. */
export function kubeconfigFor(subject: KubeconfigSubject): string {
  const { server, certificateAuthority, token, namespace } = subject;
  const name = subject.name ?? 'podwire';
  const authority =
    certificateAuthority === undefined
      ? {}
      : { 'certificate-authority-data': Buffer.from(certificateAuthority).toString('base64') };
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster: { server, ...authority } }],
    users: [{ name, user: token === undefined ? {} : { token } }],
    contexts: [
      {
        name,
        context: { cluster: name, user: name, ...(namespace === undefined ? {} : { namespace }) },
      },
    ],
    'current-context': name,
  });
}
