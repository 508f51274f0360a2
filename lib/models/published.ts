/** The full-precision files that their authors publish; none of them is part of this package. */

/** A published file and how to tell that it is the one meant. */
export interface PublishedFile {
  /** The network and its scale, in words. */
  readonly network: string;
  readonly file: string;
  /** Where it is, in words. */
  readonly place: string;
  readonly sha256: string;
}

const MAMBAIR = "release v1.0 of csguoh/MambaIR on GitHub";

/** The files that this project was measured with. */
export const PUBLISHED_FILES: readonly PublishedFile[] = [
  {
    network: "MambaIRv2-light x2",
    file: "mambairv2_lightSR_x2.pth",
    place: MAMBAIR,
    sha256: "8c6e5dfd435be61d087972991b8cfb02d00453f266a796b633053a8fad941ebe",
  },
  {
    network: "MambaIRv2-light x4",
    file: "mambairv2_lightSR_x4.pth",
    place: MAMBAIR,
    sha256: "caa9d7cf9729334b6d0aa6efae5a2cf67c53efffcbadfc576e5576a0caf6012a",
  },
];
