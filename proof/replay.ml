(* Holds traces of the real machine to the proven model. On standard input, for each machine, one line
   that says how it was made, then a line for each thing that happened, with the machine's answer and
   what it held after that:

     made CONCURRENCY CAPACITY GRACE (t|w RATE PER_NS)...
     OPERATION = ANSWER; RUNNING QUEUED HELD...

   [crates/core/examples/trace.rs] writes them. The first line that the model would have answered
   otherwise is printed, and the exit code is 1. *)

open Model

let words line = List.filter (fun word -> word <> "") (String.split_on_char ' ' line)

let rec limits = function
  | [] -> []
  | kind :: rate :: per :: rest ->
      { by_weight = kind = "w"; rate = int_of_string rate; per = int_of_string per } :: limits rest
  | _ -> failwith "a limit is three words"

let config_of = function
  | concurrency :: capacity :: grace :: rest ->
      { concurrency = int_of_string concurrency; capacity = int_of_string capacity;
        grace = int_of_string grace; limits = limits rest }
  | _ -> failwith "a machine is made of at least three numbers"

let operation text =
  let n = int_of_string in
  match words text with
  | [ "grant-at-once"; w ] -> GrantAtOnce (n w)
  | [ "try-grant"; at; w ] -> TryGrant (n at, n w)
  | [ "enqueue"; w ] -> Enqueue (n w)
  | [ "poll"; at ] -> Poll (n at)
  | [ "leave"; t ] -> Leave (n t)
  | [ "undo"; name ] -> Undo (n name)
  | [ "complete"; name; at; ended; "-" ] -> Complete (n name, n at, n ended, None)
  | [ "complete"; name; at; ended; actual ] -> Complete (n name, n at, n ended, Some (n actual))
  | [ "complete-unknown"; w; at; ended ] -> CompleteUnknown (n w, n at, n ended)
  | [ "abandon"; name; at; ended ] -> Abandon (n name, n at, n ended)
  | [ "pause"; until ] -> Pause (n until)
  | [ "resume" ] -> Resume
  | [ "close" ] -> Close
  | [ "abort" ] -> Abort
  | _ -> failwith ("no such operation: " ^ text)

let answer = function
  | Granted name -> Printf.sprintf "granted %d" name
  | GrantedTo (ticket, name) -> Printf.sprintf "granted %d to %d" name ticket
  | Accepted ticket -> Printf.sprintf "accepted %d" ticket
  | Queued (ticket, accepted) ->
      Printf.sprintf "queued %d %s" ticket (if accepted then "accepted" else "behind")
  | LookAgainAt at -> Printf.sprintf "look %d" at
  | WaitForCompletion -> "wait"
  | Idle -> "idle"
  | Busy None -> "busy"
  | Busy (Some at) -> Printf.sprintf "busy %d" at
  | RefusedWeight -> "too heavy"
  | RefusedClosed -> "closed"
  | Nothing -> "nothing"
  | Done -> "done"

let standing state =
  let held = List.map (fun window -> string_of_int (held state.works window)) state.windows in
  let numbers = [ string_of_int (running state.works); string_of_int (List.length state.line) ] in
  String.concat " " (numbers @ held)

(* One line: what the machine was like before it, and is after it. *)
let happen (config, state) line =
  match String.index_opt line '=' with
  | None -> (
      match words line with
      | "made" :: rest ->
          let config = config_of rest in
          (config, start config)
      | _ -> failwith "neither a machine nor what happened to it")
  | Some at ->
      let real = String.trim (String.sub line (at + 1) (String.length line - at - 1)) in
      let state, said = step config state (operation (String.sub line 0 at)) in
      let model = answer said ^ "; " ^ standing state in
      if model <> real then failwith ("the model says: " ^ model);
      (config, state)

let () =
  let nothing = config_of [ "1"; "0"; "0" ] in
  let rec replay lines before =
    match input_line stdin with
    | exception End_of_file -> lines
    | line -> (
        match happen before line with
        | after -> replay (lines + 1) after
        | exception Failure why ->
            Printf.printf "line %d: %s\n%s\n" (lines + 1) line why;
            exit 1)
  in
  match replay 0 (nothing, start nothing) with
  | 0 -> failwith "nothing happened"
  | lines -> Printf.printf "%d lines of the real machine, each as the proven one would have it\n" lines
