(** The law, why it is enough, and why nothing less would be.

    A task is granted at [granted], completes at [completed] and weighs [weight]. The server counts it
    at some moment in between, which nobody else knows; its name tells it from a task with the same
    numbers, which may be counted at another moment. Nothing is said of how many run at once, in which
    order, or when they were asked for: whatever holds here holds at any concurrency. Times are integers,
    as nanoseconds are. *)

From Coq Require Import ZArith List Bool Lia.
Import ListNotations.
Open Scope Z_scope.

Record task := Task { name : Z; granted : Z; completed : Z; weight : Z }.

(** What every task is: it ends no earlier than it starts, and weighs nothing less than nothing. *)
Definition possible (t : task) : Prop := granted t <= completed t /\ 0 <= weight t.

(** The moments at which the server counts the tasks: each within its own task. *)
Definition within (count : task -> Z) (ts : list task) : Prop :=
  forall t, In t ts -> granted t <= count t <= completed t.

Fixpoint total (ts : list task) : Z :=
  match ts with
  | [] => 0
  | t :: rest => weight t + total rest
  end.

Section Limit.
  Variables (rate per : Z).
  Hypothesis per_is_a_length : 0 <= per.

  (** A permit is held from its grant until [per] after the completion of its task, both included. *)
  Definition held (now : Z) (t : task) : bool :=
    (granted t <=? now) && (now <=? completed t + per).

  (** The window [x, x + per] is closed as well. *)
  Definition counted_in (count : task -> Z) (x : Z) (t : task) : bool :=
    (x <=? count t) && (count t <=? x + per).

  Definition law (ts : list task) : Prop := forall now, total (filter (held now) ts) <= rate.

  Definition overflows (count : task -> Z) (x : Z) (ts : list task) : Prop :=
    rate < total (filter (counted_in count x) ts).

  Lemma total_grows (f g : task -> bool) (ts : list task) :
    Forall possible ts ->
    (forall t, In t ts -> f t = true -> g t = true) ->
    total (filter f ts) <= total (filter g ts).
  Proof.
    induction ts as [| t rest IH]; intros Hpossible Himplies; [simpl; lia |].
    inversion Hpossible as [| ? ? [_ Hweight] Hrest]; subst.
    assert (total (filter f rest) <= total (filter g rest)) as Hsmaller
      by (apply IH; [assumption | intros; apply Himplies; [right; assumption | assumption]]).
    simpl. destruct (f t) eqn:Hf.
    - rewrite (Himplies t (or_introl eq_refl) Hf). simpl. lia.
    - destruct (g t); simpl; lia.
  Qed.

  (** Whatever the window [x, x + per] counts is held at the one instant [x + per]. *)
  Lemma counted_is_held (count : task -> Z) (ts : list task) (x : Z) :
    within count ts ->
    forall t, In t ts -> counted_in count x t = true -> held (x + per) t = true.
  Proof.
    intros Hwithin t Hin Hcounted. specialize (Hwithin t Hin).
    unfold counted_in in Hcounted. unfold held.
    rewrite andb_true_iff, !Z.leb_le in *. lia.
  Qed.

  (** The theorem: under the law no window overflows, wherever the server counts each task. *)
  Theorem no_window_overflows (ts : list task) :
    Forall possible ts -> law ts ->
    forall count x, within count ts -> ~ overflows count x ts.
  Proof.
    intros Hpossible Hlaw count x Hwithin. unfold overflows.
    pose proof (total_grows _ _ ts Hpossible (counted_is_held count ts x Hwithin)).
    specialize (Hlaw (x + per)). lia.
  Qed.

  (** So nor does a fixed window of the server's, which is half open and starts where it likes. *)
  Corollary no_fixed_window_overflows (ts : list task) :
    Forall possible ts -> law ts ->
    forall count x, within count ts ->
    total (filter (fun t => (x <=? count t) && (count t <? x + per)) ts) <= rate.
  Proof.
    intros Hpossible Hlaw count x Hwithin.
    pose proof (no_window_overflows ts Hpossible Hlaw count x Hwithin) as Hsliding.
    unfold overflows in Hsliding.
    assert (total (filter (fun t => (x <=? count t) && (count t <? x + per)) ts)
            <= total (filter (counted_in count x) ts)); [| lia].
    apply total_grows; [assumption |]. intros t _ Hfixed. unfold counted_in.
    rewrite andb_true_iff, Z.leb_le, Z.ltb_lt in Hfixed.
    rewrite andb_true_iff, !Z.leb_le. lia.
  Qed.

  (** The moment of a task that is nearest to [now - per]: for a task that is held at [now], it lies
      in the window [now - per, now]. *)
  Definition worst (now : Z) (t : task) : Z :=
    Z.max (granted t) (Z.min (completed t) (now - per)).

  (** Optimality: where the law is broken at some instant, the server may have counted so that a
      window overflows. Whoever knows only grants and completions cannot do with less. *)
  Theorem without_the_law_a_window_can_overflow (ts : list task) (now : Z) :
    Forall possible ts ->
    rate < total (filter (held now) ts) ->
    exists count x, within count ts /\ overflows count x ts.
  Proof.
    intros Hpossible Hbroken. exists (worst now), (now - per). split.
    - intros t Hin. rewrite Forall_forall in Hpossible.
      destruct (Hpossible t Hin) as [Hends _]. unfold worst. lia.
    - unfold overflows. eapply Z.lt_le_trans; [exact Hbroken |].
      apply total_grows; [assumption |]. intros t Hin Hheld.
      rewrite Forall_forall in Hpossible. destruct (Hpossible t Hin) as [Hends _].
      unfold held in Hheld. unfold counted_in, worst.
      rewrite andb_true_iff, !Z.leb_le in *. lia.
  Qed.

  (** Both together: the law holds exactly where no way of counting overflows a window. *)
  Corollary the_law_is_exact (ts : list task) :
    Forall possible ts ->
    (law ts <-> forall count x, within count ts -> ~ overflows count x ts).
  Proof.
    intros Hpossible. split; [apply no_window_overflows; assumption |].
    intros Hnever now. destruct (Z.le_gt_cases (total (filter (held now) ts)) rate) as [| Hover];
      [assumption |].
    destruct (without_the_law_a_window_can_overflow ts now Hpossible) as [count [x [Hwithin Ho]]];
      [lia |].
    exfalso. exact (Hnever count x Hwithin Ho).
  Qed.
End Limit.

Print Assumptions no_window_overflows.
Print Assumptions no_fixed_window_overflows.
Print Assumptions without_the_law_a_window_can_overflow.
Print Assumptions the_law_is_exact.
