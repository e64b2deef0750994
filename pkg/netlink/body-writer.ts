/**
 * Bodies of messages that go out by the thousand. An array for each attribute, and one for what they
 * make together, would take longer than the kernel takes over the message.
 */
import { writeAddressBytes, type Address } from '#pkg/ip/address.ts';
import { copyBytes, setU16, setU32 } from './attribute.ts';

/** More than any of these bodies needs: a few attributes of numbers and addresses. */
const scratch = new Uint8Array(512);
const headerBytes = 4;

/** One at a time: the next takes the place of one that is not finished. */
export class BodyWriter {
  #at: number;

  /** @param fixedBytes length of the struct at the start, which is zero until it is written */
  constructor(fixedBytes: number) {
    for (let at = 0; at < fixedBytes; at++) scratch[at] = 0;
    this.#at = fixedBytes;
  }

  /** Writes to the struct. */
  setU8(at: number, value: number): void {
    scratch[at] = value;
  }

  setU16(at: number, value: number): void {
    setU16(scratch, at, value);
  }

  setU32(at: number, value: number): void {
    setU32(scratch, at, value);
  }

  addU32(type: number, value: number): void {
    setU32(scratch, this.#add(type, 4), value);
  }

  addAddress(type: number, address: Address): void {
    const at = this.#add(type, address.family === 'ip' ? 4 : 16);
    writeAddressBytes(scratch, at, address);
  }

  /** "0a:58:0a:f4:01:05" */
  addMac(type: number, mac: string): void {
    let at = this.#add(type, 6);
    let byte = 0;
    for (let i = 0; i < mac.length; i++) {
      const code = mac.charCodeAt(i);
      if (code === colon) {
        scratch[at] = byte;
        at += 1;
        byte = 0;
      } else {
        byte = byte * 16 + (code <= nine ? code - zero : (code | lowerCase) - letterA + 10);
      }
    }
    scratch[at] = byte;
    scratch[at + 1] = 0;
    scratch[at + 2] = 0;
  }

  /** An attribute that was made elsewhere. */
  addWhole(attribute: Uint8Array): void {
    copyBytes(scratch, this.#at, attribute);
    this.#at += attribute.byteLength;
  }

  finish(): Uint8Array {
    return scratch.slice(0, this.#at);
  }

  /** Where the payload goes. */
  #add(type: number, payloadBytes: number): number {
    const at = this.#at;
    setU16(scratch, at, headerBytes + payloadBytes);
    setU16(scratch, at + 2, type);
    this.#at = (at + headerBytes + payloadBytes + 3) & ~3;
    return at + headerBytes;
  }
}

const [colon, zero, nine, letterA, lowerCase] = [0x3a, 0x30, 0x39, 0x61, 0x20];
