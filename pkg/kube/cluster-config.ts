/** Where an API server is and who we are to it: what kubeconfig and in-cluster files come down to. */

/** PEM text, or the file that holds it and may be replaced while we run. */
export type Pem =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'file'; readonly path: string };

export interface ClusterConfig {
  /** `http://` or `https://`, host, optional port, optional path prefix; no trailing slash. */
  readonly server: string;
  /** Name expected in the server's certificate, where it differs from the host in `server`. */
  readonly serverName: string | undefined;
  /** Do not verify the server's certificate. */
  readonly insecure: boolean;
  /** Undefined = the authorities that Node trusts. */
  readonly ca: Pem | undefined;
  readonly user: UserConfig;
  /** The context's namespace; "default" when it names none. */
  readonly namespace: string;
}

/** All may be absent (anonymous). When several give a token: file, then token, then exec. */
export interface UserConfig {
  readonly token?: string;
  /** Re-read as it rotates; wins over `token` as in client-go. */
  readonly tokenFile?: string;
  readonly certificate?: Pem;
  readonly key?: Pem;
  readonly exec?: ExecConfig;
}

/** A credential plugin (KEP-541, client.authentication.k8s.io). */
export interface ExecConfig {
  readonly apiVersion: 'client.authentication.k8s.io/v1' | 'client.authentication.k8s.io/v1beta1';
  readonly command: string;
  readonly args: readonly string[];
  /** Added to the environment that the plugin inherits. */
  readonly env: Readonly<Record<string, string>>;
  readonly installHint: string;
  readonly provideClusterInfo: boolean;
}
