(** The machine of [Machine.v] as an OCaml program, which [replay.ml] takes through traces of the real
    one. Integers become OCaml's own: the traces keep to numbers that are far from their end. *)

From Coq Require Import Extraction ExtrOcamlBasic ExtrOcamlNatInt ExtrOcamlZInt.
Require Import Machine.

Extraction "model.ml" start step running held.
