(** The machine that grants: its states, and everything that can happen to it. [Invariant.v] has the
    proof that whatever happens, in whatever order, no window overflows.

    This is the machine of [crates/core] without its data structures: the line and the logs are lists,
    a running total is a sum. It decides the same, which is not taken on trust: [Oracle.v] extracts it,
    and random traces of the real machine are held to it, answer by answer ([check]). Times, weights and
    units are integers. *)

From Coq Require Import ZArith List Bool.
Import ListNotations.
Open Scope Z_scope.

(** * What there is *)

Record limit := Limit { by_weight : bool; rate : Z; per : Z }.

(** What a task of weight [w] takes from a limit. *)
Definition units (l : limit) (w : Z) : Z := if by_weight l then w else 1.

(** A task runs from its grant until it has ended, at [at_] or before. What it counts in the end is
    its actual weight, but no more than it had reserved: nobody could have known of an excess. *)
Inductive phase := Running | Ended (at_ counted : Z).

(** A permit that was granted, and what became of it. The history of all of them is kept for the
    theorem; no decision looks at those that have ended. *)
Record work := Work { name : Z; since : Z; reserves : Z; phase_of : phase }.

(** A limit and its log: when tasks ended, and what they took; the oldest first. *)
Record window := Window { limit_of : limit; log : list (Z * Z) }.

Record waiter := Waiter { ticket : Z; wants : Z; accepted : bool }.

Record state := State {
  now : Z;
  last_end : Z;
  paused_until : Z;  (* 0 when not paused *)
  closed : bool;
  line : list waiter;
  next_ticket : Z;
  next_name : Z;
  works : list work;
  abandoned : list (Z * Z);  (* when it ends, and its name; the earliest first *)
  windows : list window
}.

Record config := Config { concurrency : Z; capacity : Z; grace : Z; limits : list limit }.

(** * What can happen, and what is answered *)

Inductive op :=
| GrantAtOnce (w : Z)
| TryGrant (at_ w : Z)
| Enqueue (w : Z)
| Poll (at_ : Z)
| Leave (t : Z)  (* a waiter leaves the queue *)
| Undo (n : Z)  (* a grant whose task never started *)
| Complete (n at_ ended : Z) (actual : option Z)
| CompleteUnknown (w at_ ended : Z)  (* with a permit that was made up, when none is out *)
| Abandon (n at_ ended : Z)
| Pause (until : Z)
| Resume
| Close
| Abort
| Merge (which entry : nat).  (* two neighbours in a log become one, stamped with the later *)

Inductive answer :=
| Granted (n : Z)
| GrantedTo (t n : Z)
| Accepted (t : Z)
| Queued (t : Z) (is_accepted : bool)
| LookAgainAt (t : Z)
| WaitForCompletion
| Idle
| Busy (not_before : option Z)
| RefusedWeight
| RefusedClosed
| Nothing
| Done.

(** * Sums *)

Definition sum {A} (f : A -> Z) (xs : list A) : Z := fold_right (fun x total => f x + total) 0 xs.

Definition is_running (w : work) : bool := match phase_of w with Running => true | _ => false end.

(** What the running hold, and what the log holds, as the machine counts them. *)
Definition running_units (l : limit) (w : work) : Z :=
  if is_running w then units l (reserves w) else 0.

Definition running (ws : list work) : Z := sum (fun w => if is_running w then 1 else 0) ws.

Definition held (ws : list work) (g : window) : Z :=
  sum (running_units (limit_of g)) ws + sum snd (log g).

(** * Deciding *)

Definition fits (ws : list work) (w : Z) (g : window) : bool :=
  held ws g + units (limit_of g) w <=? rate (limit_of g).

Section Deciding.
  Variable c : config.

  Definition has_room (s : state) (w : Z) : bool :=
    (paused_until s =? 0) && (running (works s) <? concurrency c)
    && forallb (fits (works s) w) (windows s).

  Definition possible (s : state) (w : Z) : bool :=
    (1 <=? w) && forallb (fun g => units (limit_of g) w <=? rate (limit_of g)) (windows s).

  (** When a task of weight [w] could be granted, if it is first and nothing else happens. *)
  Inductive opening := Now | At (t : Z) | AfterCompletion.

  Fixpoint first_enough (surplus : Z) (entries : list (Z * Z)) : option Z :=
    match entries with
    | [] => None
    | (stamp, u) :: rest =>
        if surplus <=? u then Some stamp else first_enough (surplus - u) rest
    end.

  Definition window_opening (ws : list work) (w : Z) (g : window) : opening :=
    let surplus := held ws g + units (limit_of g) w - rate (limit_of g) in
    if surplus <=? 0 then Now
    else match first_enough surplus (log g) with
         | Some stamp => At (stamp + per (limit_of g) + 1)
         | None => AfterCompletion
         end.

  Definition both (a b : opening) : opening :=
    match a, b with
    | Now, x | x, Now => x
    | AfterCompletion, _ | _, AfterCompletion => AfterCompletion
    | At t, At u => At (Z.max t u)
    end.

  (** Where only a completion can make room, the next that is known to come is an abandoned task's. *)
  Definition known (s : state) (o : opening) : opening :=
    match o, abandoned s with
    | AfterCompletion, (ends, _) :: _ => At ends
    | _, _ => o
    end.

  Definition opening_of (s : state) (w : Z) : opening :=
    let paused := if paused_until s =? 0 then Now else At (paused_until s) in
    let slot :=
      if running (works s) <? concurrency c then Now else known s AfterCompletion in
    fold_left (fun o g => both o (known s (window_opening (works s) w g))) (windows s)
      (both paused slot).

  Definition not_before (s : state) (w : Z) : option Z :=
    let w := match line s with head :: _ => wants head | [] => w end in
    match opening_of s w with
    | Now => Some (now s)
    | At t => Some t
    | AfterCompletion => None
    end.

  (** * Changing *)

  Definition set_works (s : state) (ws : list work) (gs : list window) (last : Z) : state :=
    State (now s) last (paused_until s) (closed s) (line s) (next_ticket s) (next_name s) ws
      (abandoned s) gs.

  Definition set_line (s : state) (ln : list waiter) (next : Z) : state :=
    State (now s) (last_end s) (paused_until s) (closed s) ln next (next_name s) (works s)
      (abandoned s) (windows s).

  Definition set_abandoned (s : state) (ab : list (Z * Z)) : state :=
    State (now s) (last_end s) (paused_until s) (closed s) (line s) (next_ticket s) (next_name s)
      (works s) ab (windows s).

  Definition set_pause (s : state) (until : Z) (is_closed : bool) : state :=
    State (now s) (last_end s) until is_closed (line s) (next_ticket s) (next_name s) (works s)
      (abandoned s) (windows s).

  Definition grant (s : state) (w : Z) : state :=
    State (now s) (last_end s) (paused_until s) (closed s) (line s) (next_ticket s)
      (next_name s + 1) (Work (next_name s) (now s) w Running :: works s) (abandoned s) (windows s).

  (** The task [n] ends at [at_]: what it reserved, and the history after that. *)
  Fixpoint finish (n at_ : Z) (actual : option Z) (ws : list work) : option (Z * list work) :=
    match ws with
    | [] => None
    | w :: rest =>
        if is_running w && (name w =? n) then
          let counted :=
            match actual with Some a => Z.min a (reserves w) | None => reserves w end in
          Some (reserves w, Work n (since w) (reserves w) (Ended at_ counted) :: rest)
        else match finish n at_ actual rest with
             | Some (r, rest') => Some (r, w :: rest')
             | None => None
             end
    end.

  Fixpoint forget (n : Z) (ws : list work) : option (list work) :=
    match ws with
    | [] => None
    | w :: rest =>
        if is_running w && (name w =? n) then Some rest
        else match forget n rest with Some rest' => Some (w :: rest') | None => None end
    end.

  (** A completion enters a log, in full. *)
  Definition enter (stamp actual : Z) (g : window) : window :=
    let u := units (limit_of g) actual in
    if u <=? 0 then g else Window (limit_of g) (log g ++ [(stamp, u)]).

  (** The task [n] ended at [at_] at the latest. *)
  Definition record (s : state) (n at_ : Z) (actual : option Z) : option state :=
    let last := Z.max (last_end s) at_ in
    match finish n at_ actual (works s) with
    | None => None
    | Some (r, ws) =>
        let a := match actual with Some a => a | None => r end in
        Some (set_works s ws (map (enter last a) (windows s)) last)
    end.

  (** Abandoned tasks whose grace is over complete. *)
  Fixpoint settle (s : state) (n : Z) (ab : list (Z * Z)) : state :=
    match ab with
    | [] => set_abandoned s []
    | (ends, who) :: rest =>
        if ends <=? n then
          match record s who ends None with
          | Some s' => settle s' n rest
          | None => settle s n rest
          end
        else set_abandoned s ab
    end.

  Fixpoint drop_expired (n p : Z) (entries : list (Z * Z)) : list (Z * Z) :=
    match entries with
    | [] => []
    | (stamp, u) :: rest => if n <=? stamp + p then entries else drop_expired n p rest
    end.

  Definition expire (n : Z) (g : window) : window :=
    Window (limit_of g) (drop_expired n (per (limit_of g)) (log g)).

  Definition at_time (s : state) (n : Z) : state :=
    State n (last_end s) (if paused_until s <=? n then 0 else paused_until s) (closed s) (line s)
      (next_ticket s) (next_name s) (works s) (abandoned s) (map (expire n) (windows s)).

  (** Time moves on. It never goes back in here. *)
  Definition advance (s : state) (n : Z) : state :=
    if n <=? now s then s else at_time (settle s n (abandoned s)) n.

  Fixpoint accept_first (ln : list waiter) : option (Z * list waiter) :=
    match ln with
    | [] => None
    | w :: rest =>
        if accepted w then
          match accept_first rest with
          | Some (t, rest') => Some (t, w :: rest')
          | None => None
          end
        else Some (ticket w, Waiter (ticket w) (wants w) true :: rest)
    end.

  Definition many_accepted (ln : list waiter) : Z :=
    sum (fun w => if accepted w then 1 else 0) ln.

  Definition accept_next (ln : list waiter) : option (Z * list waiter) :=
    if capacity c <=? many_accepted ln then None else accept_first ln.

  Fixpoint merge_at (i : nat) (entries : list (Z * Z)) : list (Z * Z) :=
    match i, entries with
    | O, (s1, u1) :: (s2, u2) :: rest => (Z.max s1 s2, u1 + u2) :: rest
    | S i, e :: rest => e :: merge_at i rest
    | _, _ => entries
    end.

  Fixpoint merge_in (which : nat) (i : nat) (gs : list window) : list window :=
    match which, gs with
    | O, g :: rest => Window (limit_of g) (merge_at i (log g)) :: rest
    | S k, g :: rest => g :: merge_in k i rest
    | _, [] => []
    end.

  (** The one place that grants: only where there is room. *)
  Definition grant_if (s : state) (w : Z) : option state :=
    if has_room s w then Some (grant s w) else None.

  Definition poll (s : state) : state * answer :=
    match accept_next (line s) with
    | Some (t, ln) => (set_line s ln (next_ticket s), Accepted t)
    | None =>
        match line s, abandoned s with
        | [], [] => (s, Idle)
        | [], (ends, _) :: _ => (s, LookAgainAt ends)
        | head :: rest, _ =>
            match grant_if s (wants head) with
            | Some s' =>
                (set_line s' rest (next_ticket s), GrantedTo (ticket head) (next_name s))
            | None =>
                match opening_of s (wants head) with
                | At t => (s, LookAgainAt t)
                | _ => (s, WaitForCompletion)
                end
            end
        end
    end.

  Definition end_of (s : state) (at_ ended : Z) : Z := Z.max ended (now (advance s at_)).

  (** As late as any abandoned task before it, so that they end in order. *)
  Definition grace_ends (s : state) (ended : Z) : Z :=
    fold_left (fun latest e => Z.max latest (fst e)) (abandoned s) (ended + grace c).

  Definition complete (s : state) (n at_ ended : Z) (actual : option Z) : state * answer :=
    let actual := match actual with Some a => Some (Z.max 0 a) | None => None end in
    match record (advance s at_) n (end_of s at_ ended) actual with
    | Some s' => (s', Done)
    | None => (s, Nothing)
    end.

  Definition step (s : state) (o : op) : state * answer :=
    match o with
    | GrantAtOnce w =>
        if closed s || negb (possible s w) then (s, Nothing)
        else match line s, grant_if s w with
             | [], Some s' => (s', Granted (next_name s))
             | _, _ => (s, Nothing)
             end
    | TryGrant at_ w =>
        if negb (possible s w) then (s, RefusedWeight)
        else if closed s then (s, RefusedClosed)
        else
          let s := advance s at_ in
          match line s, grant_if s w with
          | [], Some s' => (s', Granted (next_name s))
          | _, _ => (s, Busy (not_before s w))
          end
    | Enqueue w =>
        if negb (possible s w) then (s, RefusedWeight)
        else if closed s then (s, RefusedClosed)
        else
          let ok := forallb accepted (line s) && (many_accepted (line s) <? capacity c) in
          let t := next_ticket s in
          (set_line s (line s ++ [Waiter t w ok]) (t + 1), Queued t ok)
    | Poll at_ => poll (advance s at_)
    | Leave t =>
        (set_line s (filter (fun w => negb (ticket w =? t)) (line s)) (next_ticket s), Done)
    | Undo n =>
        match forget n (works s) with
        | Some ws => (set_works s ws (windows s) (last_end s), Done)
        | None => (s, Nothing)
        end
    | Complete n at_ ended actual => complete s n at_ ended actual
    | CompleteUnknown w at_ ended =>
        let s' := advance s at_ in
        let last := Z.max (last_end s') (end_of s at_ ended) in
        (set_works s' (works s') (map (enter last w) (windows s')) last, Done)
    | Abandon n at_ ended =>
        if grace c =? 0 then complete s n at_ ended None
        else
          let s' := advance s at_ in
          (set_abandoned s' (abandoned s' ++ [(grace_ends s' (end_of s at_ ended), n)]), Done)
    | Pause until =>
        (if now s <? until then set_pause s (Z.max (paused_until s) until) (closed s) else s, Done)
    | Resume => (set_pause s 0 (closed s), Done)
    | Close => (set_pause s (paused_until s) true, Done)
    | Abort => (set_line (set_pause s (paused_until s) true) [] (next_ticket s), Done)
    | Merge which entry =>
        (set_works s (works s) (merge_in which entry (windows s)) (last_end s), Done)
    end.

  Definition start : state :=
    State 0 0 0 false [] 0 0 [] [] (map (fun l => Window l []) (limits c)).

  Definition run (ops : list op) : state := fold_left (fun s o => fst (step s o)) ops start.
End Deciding.
