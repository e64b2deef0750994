/** A routing daemon of tests, of whichever make. */
export interface RoutingProgram {
  /** Its part of a node's configuration file (YAML), for the section `bgp`. */
  readonly settings: readonly string[];
  /** Starts it; with `recovering` after it was killed, so that the kernel's routes stay. */
  start(recovering?: boolean): Promise<void>;
  /** As the kernel ends it when memory runs out. */
  kill(): Promise<void>;
  /** Ends all that is of it. */
  end(): Promise<void>;
  /** The name of rtm_protocol that its routes have in the kernel. */
  readonly routeProtocol: 'bird' | 'bgp';
  /** How many of its sessions are up. */
  established(): Promise<number>;
  /** Whether it still keeps routes of its former life. */
  isRecovering(): Promise<boolean>;
}
