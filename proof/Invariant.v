(** Whatever happens to the machine of [Machine.v], in whatever order: the law holds, and so no window
    overflows, wherever within its task the server counts each. *)

From Coq Require Import ZArith List Bool Lia.
Require Import Machine.
Import ListNotations.
Open Scope Z_scope.

(** * The law, and that everything keeps it *)

Definition counted (w : work) : Z :=
  match phase_of w with Running => reserves w | Ended _ k => k end.

(** Held from the grant until [per] after the end, both included; while it runs, without an end. *)
Definition held_at (l : limit) (t : Z) (w : work) : bool :=
  (since w <=? t) && match phase_of w with Running => true | Ended e _ => t <=? e + per l end.

Definition contribution (l : limit) (t : Z) (w : work) : Z :=
  if held_at l t w then units l (counted w) else 0.

Definition law_at (l : limit) (ws : list work) (t : Z) : Prop := sum (contribution l t) ws <= rate l.

(** What of the ended is still held at [t], in truth and by the log. *)
Definition ended_units (l : limit) (t : Z) (w : work) : Z :=
  match phase_of w with
  | Ended e k => if t <=? e + per l then units l k else 0
  | Running => 0
  end.

Definition logged_units (l : limit) (t : Z) (entry : Z * Z) : Z :=
  if t <=? fst entry + per l then snd entry else 0.

Definition sound (l : limit) (n : Z) (w : work) : Prop :=
  since w <= n /\ 0 <= units l (reserves w) <= rate l /\ 0 <= units l (counted w).

(** The invariant of one window. *)
Record kept (ws : list work) (n : Z) (g : window) : Prop := Kept {
  a_rate : 0 <= rate (limit_of g);
  the_law : forall t, t <= n -> law_at (limit_of g) ws t;
  the_log_knows :
    forall t, n <= t ->
    sum (ended_units (limit_of g) t) ws <= sum (logged_units (limit_of g) t) (log g);
  all_sound : Forall (sound (limit_of g) n) ws;
  log_sound : Forall (fun entry => 0 <= snd entry) (log g)
}.

Definition invariant (s : state) : Prop := Forall (kept (works s) (now s)) (windows s).

(** ** Sums *)

Lemma sum_app {A} (f : A -> Z) (xs ys : list A) : sum f (xs ++ ys) = sum f xs + sum f ys.
Proof. induction xs as [| x xs IH]; simpl; lia. Qed.

Lemma sum_le {A} (f g : A -> Z) (xs : list A) :
  Forall (fun x => f x <= g x) xs -> sum f xs <= sum g xs.
Proof. induction 1; simpl; lia. Qed.

Lemma sum_nonneg {A} (f : A -> Z) (xs : list A) : Forall (fun x => 0 <= f x) xs -> 0 <= sum f xs.
Proof. induction 1; simpl; lia. Qed.

Lemma sum_add {A} (f g : A -> Z) (xs : list A) :
  sum (fun x => f x + g x) xs = sum f xs + sum g xs.
Proof. induction xs; simpl; lia. Qed.

(** ** Time moves on *)

Lemma held_before (l : limit) (t n : Z) (w : work) :
  sound l n w -> n <= t -> contribution l t w <= contribution l n w.
Proof.
  intros [Hsince [_ Hcounted]] Hle. unfold contribution.
  destruct (held_at l t w) eqn:Hheld.
  - assert (held_at l n w = true) as ->; [| lia].
    unfold held_at in *. rewrite andb_true_iff in *. rewrite !Z.leb_le in *.
    destruct Hheld as [_ Hend]. split; [lia |].
    destruct (phase_of w); [reflexivity |]. rewrite Z.leb_le in *. lia.
  - destruct (held_at l n w); lia.
Qed.

Lemma law_later (ws : list work) (n t : Z) (g : window) :
  kept ws n g -> n <= t -> law_at (limit_of g) ws t.
Proof.
  intros [_ Hlaw _ Hsound _] Hle. specialize (Hlaw n (Z.le_refl n)). unfold law_at in *.
  eapply Z.le_trans; [| exact Hlaw]. apply sum_le.
  eapply Forall_impl; [| exact Hsound]. intros w Hw. apply held_before; assumption.
Qed.

Lemma expired_is_not_held (l : limit) (n t : Z) (entries : list (Z * Z)) :
  n <= t ->
  sum (logged_units l t) (drop_expired n (per l) entries) = sum (logged_units l t) entries.
Proof.
  intros Hle. induction entries as [| [stamp u] rest IH]; [reflexivity |]. simpl.
  destruct (n <=? stamp + per l) eqn:Hheld; [reflexivity |]. rewrite IH. unfold logged_units at 2.
  rewrite Z.leb_gt in Hheld. simpl. destruct (t <=? stamp + per l) eqn:Ht; [| lia].
  rewrite Z.leb_le in Ht. lia.
Qed.

Lemma drop_expired_sound (n p : Z) (entries : list (Z * Z)) :
  Forall (fun entry => 0 <= snd entry) entries ->
  Forall (fun entry => 0 <= snd entry) (drop_expired n p entries).
Proof.
  induction 1 as [| [stamp u] rest Hu Hrest IH]; simpl; [constructor |].
  destruct (n <=? stamp + p); [constructor; assumption | assumption].
Qed.

Lemma kept_at_time (ws : list work) (n m : Z) (g : window) :
  n <= m -> kept ws n g -> kept ws m (expire m g).
Proof.
  intros Hle Hkept. pose proof Hkept as [Hrate Hlaw Hlog Hsound Hentries].
  constructor; simpl; try assumption.
  - intros t Ht. destruct (Z.le_gt_cases t n); [apply Hlaw; assumption |].
    apply (law_later ws n); [assumption | lia].
  - intros t Ht. rewrite expired_is_not_held by assumption. apply Hlog. lia.
  - eapply Forall_impl; [| exact Hsound]. intros w [H1 H2]. split; [lia | assumption].
  - apply drop_expired_sound. assumption.
Qed.

(** ** A grant *)

Lemma contribution_is_held (l : limit) (n : Z) (w : work) :
  sound l n w -> contribution l n w <= running_units l w + ended_units l n w.
Proof.
  intros [_ [Hreserves Hcounted]]. unfold contribution, running_units, ended_units, is_running.
  unfold held_at, counted in *. destruct (phase_of w) as [| e k].
  - destruct (since w <=? n); simpl; lia.
  - destruct (since w <=? n); simpl; destruct (n <=? e + per l); lia.
Qed.

Lemma logged_at_most (l : limit) (t : Z) (entries : list (Z * Z)) :
  Forall (fun entry => 0 <= snd entry) entries ->
  sum (logged_units l t) entries <= sum snd entries.
Proof.
  intros H. apply sum_le. eapply Forall_impl; [| exact H]. intros [stamp u] Hu.
  unfold logged_units. simpl in *. destruct (t <=? stamp + per l); lia.
Qed.

Lemma kept_grant (ws : list work) (n w m : Z) (g : window) :
  kept ws n g -> fits ws w g = true -> 0 <= units (limit_of g) w <= rate (limit_of g) ->
  kept (Work m n w Running :: ws) n g.
Proof.
  intros Hkept Hfits Hunits. pose proof Hkept as [Hrate Hlaw Hlog Hsound Hentries].
  unfold fits, held in Hfits. rewrite Z.leb_le in Hfits.
  constructor; try assumption.
  - intros t Ht. unfold law_at. simpl. unfold contribution at 1, held_at. simpl.
    destruct (n <=? t) eqn:Hn; simpl.
    + rewrite Z.leb_le in Hn. assert (t = n) as -> by lia.
      assert (sum (contribution (limit_of g) n) ws
              <= sum (running_units (limit_of g)) ws + sum (ended_units (limit_of g) n) ws) as Hsum.
      { rewrite <- sum_add. apply sum_le. eapply Forall_impl; [| exact Hsound].
        intros x Hx. apply contribution_is_held. assumption. }
      specialize (Hlog n (Z.le_refl n)).
      pose proof (logged_at_most (limit_of g) n (log g) Hentries).
      unfold counted. simpl. lia.
    + specialize (Hlaw t Ht). unfold law_at in Hlaw. lia.
  - constructor; [| assumption]. unfold sound, counted. simpl. lia.
Qed.

(** ** A completion, a merge, and a grant that is undone *)

Lemma finish_splits (n e : Z) (actual : option Z) (ws ws' : list work) (r : Z) :
  finish n e actual ws = Some (r, ws') ->
  exists before w after,
    ws = before ++ w :: after /\ is_running w = true /\ reserves w = r
    /\ ws' = before ++ Work n (since w) r (Ended e
         match actual with Some a => Z.min a r | None => r end) :: after.
Proof.
  revert r ws'. induction ws as [| w rest IH]; simpl; [discriminate |]. intros r ws'.
  destruct (is_running w && (name w =? n)) eqn:Hfound.
  - intros [= <- <-]. rewrite andb_true_iff in Hfound. exists [], w, rest.
    repeat split; tauto.
  - destruct (finish n e actual rest) as [[r1 rest1] |]; [| discriminate]. intros [= <- <-].
    destruct (IH r1 rest1 eq_refl) as [before [w1 [after [-> [H1 [H2 ->]]]]]].
    exists (w :: before), w1, after. repeat split; assumption.
Qed.

Lemma forget_splits (n : Z) (ws ws' : list work) :
  forget n ws = Some ws' ->
  exists before w after, ws = before ++ w :: after /\ is_running w = true /\ ws' = before ++ after.
Proof.
  revert ws'. induction ws as [| w rest IH]; simpl; [discriminate |]. intros ws'.
  destruct (is_running w && (name w =? n)) eqn:Hfound.
  - intros [= <-]. rewrite andb_true_iff in Hfound. exists [], w, rest. repeat split; tauto.
  - destruct (forget n rest) as [rest1 |]; [| discriminate]. intros [= <-].
    destruct (IH rest1 eq_refl) as [before [w1 [after [-> [H1 ->]]]]].
    exists (w :: before), w1, after. repeat split; assumption.
Qed.

Lemma kept_forget (ws ws' : list work) (n m : Z) (g : window) :
  kept ws m g -> forget n ws = Some ws' -> kept ws' m g.
Proof.
  intros [Hrate Hlaw Hlog Hsound Hentries] Hforget.
  destruct (forget_splits _ _ _ Hforget) as [before [w [after [-> [Hrunning ->]]]]].
  rewrite Forall_app, Forall_cons_iff in Hsound. destruct Hsound as [H1 [[_ [_ Hw]] H2]].
  constructor; try assumption.
  - intros t Ht. specialize (Hlaw t Ht). unfold law_at in *. rewrite sum_app in *. simpl in Hlaw.
    assert (0 <= contribution (limit_of g) t w); [| lia].
    unfold contribution. destruct (held_at (limit_of g) t w); lia.
  - intros t Ht. specialize (Hlog t Ht). rewrite sum_app in *. simpl in Hlog.
    unfold ended_units at 2 in Hlog. unfold is_running in Hrunning.
    destruct (phase_of w); [lia | discriminate].
  - rewrite Forall_app. split; assumption.
Qed.

Lemma units_of_less (l : limit) (a r : Z) :
  0 <= a -> 0 <= units l r -> 0 <= units l (Z.min a r) <= Z.min (units l a) (units l r).
Proof. unfold units. destruct (by_weight l); lia. Qed.

(** The end [e] of the task is no later than its stamp in the log. *)
Lemma kept_record (ws ws' : list work) (n m e stamp r : Z) (actual : option Z) (g : window) :
  kept ws m g -> finish n e actual ws = Some (r, ws') ->
  e <= stamp -> match actual with Some a => 0 <= a | None => True end ->
  kept ws' m (enter stamp match actual with Some a => a | None => r end g).
Proof.
  intros [Hrate Hlaw Hlog Hsound Hentries] Hfinish Hstamp Hactual.
  destruct (finish_splits _ _ _ _ _ _ Hfinish) as [before [w [after [-> [Hrunning [Hr ->]]]]]].
  rewrite Forall_app, Forall_cons_iff in Hsound.
  destruct Hsound as [H1 [[Hsince [Hreserves Hcounted]] H2]]. rewrite Hr in Hreserves.
  set (l := limit_of g) in *.
  set (k := match actual with Some a => Z.min a r | None => r end).
  set (a := match actual with Some a => a | None => r end).
  assert (0 <= units l k <= units l a /\ units l k <= units l r) as Hk.
  { unfold k, a. destruct actual as [x |]; [| lia].
    pose proof (units_of_less l x r Hactual (proj1 Hreserves)). lia. }
  assert (limit_of (enter stamp a g) = l) as Hlimit.
  { unfold enter. fold l. destruct (units l a <=? 0); reflexivity. }
  constructor; rewrite ?Hlimit; try assumption.
  - intros t Ht. specialize (Hlaw t Ht). unfold law_at in *. rewrite sum_app in *. simpl in *.
    assert (contribution l t (Work n (since w) r (Ended e k)) <= contribution l t w); [| lia].
    unfold contribution, held_at, counted. simpl. unfold is_running in Hrunning.
    destruct (phase_of w); [| discriminate]. rewrite Hr.
    destruct (since w <=? t); simpl; [| lia]. destruct (t <=? e + per l); lia.
  - intros t Ht. specialize (Hlog t Ht). rewrite sum_app in *. simpl in *.
    unfold ended_units at 2 in Hlog. unfold is_running in Hrunning.
    destruct (phase_of w); [| discriminate].
    unfold ended_units at 2. simpl. unfold enter. fold l.
    destruct (units l a <=? 0) eqn:Hnone.
    + rewrite Z.leb_le in Hnone. destruct (t <=? e + per l); lia.
    + simpl. rewrite sum_app. simpl. unfold logged_units at 2. simpl.
      destruct (t <=? e + per l) eqn:He.
      * rewrite Z.leb_le in He. assert (t <=? stamp + per l = true) as -> by (rewrite Z.leb_le; lia).
        lia.
      * destruct (t <=? stamp + per l); lia.
  - rewrite Forall_app, Forall_cons_iff. split; [assumption |]. split; [| assumption].
    unfold sound, counted. simpl. lia.
  - unfold enter. fold l. destruct (units l a <=? 0) eqn:Hnone; [assumption |].
    rewrite Z.leb_gt in Hnone. simpl. rewrite Forall_app. split; [assumption |].
    constructor; [simpl; lia | constructor].
Qed.

Lemma merged_holds_longer (l : limit) (t : Z) (i : nat) (entries : list (Z * Z)) :
  Forall (fun entry => 0 <= snd entry) entries ->
  sum (logged_units l t) entries <= sum (logged_units l t) (merge_at i entries)
  /\ Forall (fun entry => 0 <= snd entry) (merge_at i entries).
Proof.
  revert i. induction entries as [| [s1 u1] rest IH]; intros i H.
  - destruct i; simpl; split; auto; lia.
  - inversion H as [| ? ? Hu Hrest]; subst. simpl in Hu. destruct i as [| i].
    + destruct rest as [| [s2 u2] rest]; simpl; [split; [lia | assumption] |].
      inversion Hrest as [| ? ? Hu2 Hrest2]; subst. simpl in Hu2. split.
      * unfold logged_units at 1 2 4. simpl.
        destruct (t <=? s1 + per l) eqn:E1; destruct (t <=? s2 + per l) eqn:E2;
          destruct (t <=? Z.max s1 s2 + per l) eqn:E3;
          rewrite ?Z.leb_le, ?Z.leb_gt in *; lia.
      * constructor; [simpl; lia | assumption].
    + simpl. destruct (IH i Hrest) as [Hle Hsound]. split; [lia | constructor; assumption].
Qed.

Lemma kept_merge (ws : list work) (n : Z) (i : nat) (g : window) :
  kept ws n g -> kept ws n (Window (limit_of g) (merge_at i (log g))).
Proof.
  intros [Hrate Hlaw Hlog Hsound Hentries]. constructor; simpl; try assumption.
  - intros t Ht. specialize (Hlog t Ht).
    pose proof (proj1 (merged_holds_longer (limit_of g) t i (log g) Hentries)). lia.
  - exact (proj2 (merged_holds_longer (limit_of g) n i (log g) Hentries)).
Qed.

(** What took nothing here completes: the log knows of more than it has to. *)
Lemma kept_enter (ws : list work) (n stamp a : Z) (g : window) :
  kept ws n g -> kept ws n (enter stamp a g).
Proof.
  intros [Hrate Hlaw Hlog Hsound Hentries]. unfold enter.
  destruct (units (limit_of g) a <=? 0) eqn:Hnone;
    [constructor; assumption |].
  rewrite Z.leb_gt in Hnone. constructor; simpl; try assumption.
  - intros t Ht. specialize (Hlog t Ht). rewrite sum_app. simpl. unfold logged_units at 2. simpl.
    destruct (t <=? stamp + per (limit_of g)); lia.
  - rewrite Forall_app. split; [assumption |]. constructor; [simpl; lia | constructor].
Qed.

(** ** Every step *)

Lemma invariant_record (s s' : state) (n e : Z) (actual : option Z) :
  invariant s -> match actual with Some a => 0 <= a | None => True end ->
  record s n e actual = Some s' -> invariant s'.
Proof.
  intros Hinv Hactual. unfold record.
  destruct (finish n e actual (works s)) as [[r ws] |] eqn:Hfinish; [| discriminate].
  intros [= <-]. unfold invariant in *. simpl. rewrite Forall_map.
  eapply Forall_impl; [| exact Hinv]. intros g Hg.
  eapply kept_record; [exact Hg | exact Hfinish | lia | assumption].
Qed.

Lemma invariant_settle (n : Z) (ab : list (Z * Z)) (s : state) :
  invariant s -> invariant (settle s n ab) /\ now (settle s n ab) = now s.
Proof.
  revert s. induction ab as [| [ends who] rest IH]; intros s Hinv; simpl; [split; auto |].
  destruct (ends <=? n); [| split; auto].
  destruct (record s who ends None) as [s' |] eqn:Hrecord; [| apply IH; assumption].
  assert (now s' = now s) as <-.
  { unfold record in Hrecord. destruct (finish who ends None (works s)) as [[r ws] |];
      [| discriminate]. injection Hrecord as <-. reflexivity. }
  apply IH. exact (invariant_record s s' who ends None Hinv I Hrecord).
Qed.

Lemma invariant_advance (s : state) (n : Z) : invariant s -> invariant (advance s n).
Proof.
  intros Hinv. unfold advance. destruct (n <=? now s) eqn:Hpast; [assumption |].
  rewrite Z.leb_gt in Hpast. destruct (invariant_settle n (abandoned s) s Hinv) as [Hsettled Hnow].
  unfold invariant, at_time in *. simpl. rewrite Forall_map.
  eapply Forall_impl; [| exact Hsettled]. intros g Hg. eapply kept_at_time; [| exact Hg]. lia.
Qed.

Lemma invariant_grant (c : config) (s s' : state) (w : Z) :
  invariant s -> possible s w = true -> grant_if c s w = Some s' -> invariant s'.
Proof.
  intros Hinv Hpossible. unfold grant_if. destruct (has_room c s w) eqn:Hroom; [| discriminate].
  intros [= <-]. unfold has_room in Hroom. unfold possible in Hpossible.
  rewrite !andb_true_iff, Z.leb_le, forallb_forall in *.
  destruct Hroom as [_ Hfits]. destruct Hpossible as [Hw Hpossible].
  unfold invariant in *. simpl. rewrite Forall_forall in *. intros g Hg.
  apply kept_grant; [apply Hinv; assumption | apply Hfits; assumption |].
  specialize (Hpossible g Hg). rewrite Z.leb_le in Hpossible. split; [| assumption].
  unfold units. destruct (by_weight (limit_of g)); lia.
Qed.

(** Every waiter in the queue could run: that was checked when it joined, and limits do not change. *)
Definition line_possible (s : state) : Prop :=
  Forall (fun w => possible s (wants w) = true) (line s).

Definition good (s : state) : Prop := invariant s /\ line_possible s.

Lemma possible_same (s s' : state) (w : Z) :
  map limit_of (windows s') = map limit_of (windows s) -> possible s' w = possible s w.
Proof.
  intros Hsame. unfold possible. f_equal.
  assert (forall gs, forallb (fun g => units (limit_of g) w <=? rate (limit_of g)) gs
                     = forallb (fun l => units l w <=? rate l) (map limit_of gs)) as Hmap.
  { induction gs as [| g gs IH]; simpl; [reflexivity | rewrite IH; reflexivity]. }
  rewrite !Hmap, Hsame. reflexivity.
Qed.

Lemma line_same (s s' : state) :
  map limit_of (windows s') = map limit_of (windows s) -> line s' = line s ->
  line_possible s -> line_possible s'.
Proof.
  intros Hsame Hline H. unfold line_possible in *. rewrite Hline.
  eapply Forall_impl; [| exact H]. intros w. rewrite (possible_same s s' _ Hsame). auto.
Qed.

Lemma limits_enter (stamp a : Z) (gs : list window) :
  map limit_of (map (enter stamp a) gs) = map limit_of gs.
Proof.
  rewrite map_map. apply map_ext. intros g. unfold enter.
  destruct (units (limit_of g) a <=? 0); reflexivity.
Qed.

Lemma record_same (s s' : state) (n e : Z) (actual : option Z) :
  record s n e actual = Some s' ->
  map limit_of (windows s') = map limit_of (windows s) /\ line s' = line s.
Proof.
  unfold record. destruct (finish n e actual (works s)) as [[r ws] |]; [| discriminate].
  intros [= <-]. simpl. split; [apply limits_enter | reflexivity].
Qed.

Lemma settle_same (n : Z) (ab : list (Z * Z)) (s : state) :
  map limit_of (windows (settle s n ab)) = map limit_of (windows s)
  /\ line (settle s n ab) = line s.
Proof.
  revert s. induction ab as [| [ends who] rest IH]; intros s; simpl; [auto |].
  destruct (ends <=? n); [| auto].
  destruct (record s who ends None) as [s' |] eqn:Hrecord; [| apply IH].
  destruct (record_same _ _ _ _ _ Hrecord) as [Hlimits Hline].
  destruct (IH s') as [H1 H2]. split; congruence.
Qed.

Lemma advance_same (s : state) (n : Z) :
  map limit_of (windows (advance s n)) = map limit_of (windows s) /\ line (advance s n) = line s.
Proof.
  unfold advance. destruct (n <=? now s); [auto |]. destruct (settle_same n (abandoned s) s).
  unfold at_time. simpl. rewrite map_map. split; [| assumption].
  rewrite <- H. apply map_ext. reflexivity.
Qed.

Lemma good_advance (s : state) (n : Z) : good s -> good (advance s n).
Proof.
  intros [Hinv Hline]. split; [apply invariant_advance; assumption |].
  destruct (advance_same s n). eapply line_same; eassumption.
Qed.

Lemma good_complete (s : state) (n at_ ended : Z) (actual : option Z) :
  good s -> good (fst (complete s n at_ ended actual)).
Proof.
  intros Hgood. unfold complete.
  destruct (record (advance s at_) n (end_of s at_ ended) _) as [s' |] eqn:Hrecord; [| assumption].
  destruct (good_advance s at_ Hgood) as [Hinv Hline]. simpl. split.
  - eapply invariant_record; [exact Hinv | | exact Hrecord].
    destruct actual; [apply Z.le_max_l | exact I].
  - destruct (record_same _ _ _ _ _ Hrecord). eapply line_same; eassumption.
Qed.

Lemma accept_keeps (s : state) (ln ln' : list waiter) (t : Z) :
  accept_first ln = Some (t, ln') ->
  Forall (fun w => possible s (wants w) = true) ln ->
  Forall (fun w => possible s (wants w) = true) ln'.
Proof.
  revert t ln'. induction ln as [| w rest IH]; simpl; [discriminate |]. intros t ln' Haccept H.
  inversion H; subst. destruct (accepted w).
  - destruct (accept_first rest) as [[t1 rest1] |]; [| discriminate].
    injection Haccept as <- <-. constructor; [assumption | eapply IH; [reflexivity | assumption]].
  - injection Haccept as <- <-. constructor; assumption.
Qed.

Lemma good_poll (c : config) (s : state) : good s -> good (fst (poll c s)).
Proof.
  intros [Hinv Hline]. unfold poll.
  destruct (accept_next c (line s)) as [[t ln] |] eqn:Haccept.
  { split; [exact Hinv |]. unfold accept_next in Haccept.
    destruct (capacity c <=? many_accepted (line s)); [discriminate |].
    exact (accept_keeps s _ _ _ Haccept Hline). }
  destruct (line s) as [| head rest] eqn:Hl; [destruct (abandoned s) as [| [? ?] ?]; split; assumption |].
  unfold line_possible in Hline. rewrite Hl in Hline.
  inversion Hline as [| ? ? Hhead Hrest]; subst.
  destruct (grant_if c s (wants head)) as [s' |] eqn:Hgrant.
  - split.
    + pose proof (invariant_grant c s s' (wants head) Hinv Hhead Hgrant) as H. exact H.
    + assert (windows s' = windows s) as Hsame.
      { unfold grant_if in Hgrant. destruct (has_room c s (wants head)); [| discriminate].
        injection Hgrant as <-. reflexivity. }
      unfold line_possible. simpl. eapply Forall_impl; [| exact Hrest]. intros w Hw.
      erewrite possible_same; [exact Hw |]. simpl. rewrite Hsame. reflexivity.
  - assert (good s) as Hsame
      by (split; [assumption | unfold line_possible; rewrite Hl; constructor; assumption]).
    destruct (opening_of c s (wants head)); exact Hsame.
Qed.

Lemma grant_same (c : config) (s s' : state) (w : Z) :
  grant_if c s w = Some s' -> windows s' = windows s /\ line s' = line s.
Proof.
  unfold grant_if. destruct (has_room c s w); [| discriminate]. intros [= <-]. auto.
Qed.

Lemma good_grant (c : config) (s s' : state) (w : Z) :
  good s -> possible s w = true -> grant_if c s w = Some s' -> good s'.
Proof.
  intros [Hinv Hline] Hpossible Hgrant. destruct (grant_same c s s' w Hgrant) as [Hw Hl]. split.
  - eapply invariant_grant; eassumption.
  - eapply line_same; [| exact Hl | exact Hline]. rewrite Hw. reflexivity.
Qed.

Lemma invariant_merge (which i : nat) (gs : list window) (ws : list work) (n : Z) :
  Forall (kept ws n) gs -> Forall (kept ws n) (merge_in which i gs).
Proof.
  revert which. induction gs as [| g rest IH]; intros which H.
  - destruct which; constructor.
  - inversion H; subst. destruct which as [| k]; simpl; constructor; auto.
    apply kept_merge. assumption.
Qed.

Lemma limits_merge (which i : nat) (gs : list window) :
  map limit_of (merge_in which i gs) = map limit_of gs.
Proof.
  revert which. induction gs as [| g rest IH]; intros which; destruct which; simpl; auto.
  rewrite IH. reflexivity.
Qed.

Lemma good_step (c : config) (s : state) (o : op) : good s -> good (fst (step c s o)).
Proof.
  intros Hgood. pose proof Hgood as [Hinv Hline].
  destruct o as [w | at_ w | w | at_ | t | n | n at_ ended actual | w at_ ended | n at_ ended | until
    | | | | which i];
    cbn [step].
  - destruct (closed s || negb (possible s w)) eqn:Hrefused; [exact Hgood |].
    rewrite orb_false_iff, negb_false_iff in Hrefused. destruct Hrefused as [_ Hpossible].
    destruct (line s); [| exact Hgood].
    destruct (grant_if c s w) as [s' |] eqn:Hgrant; [| exact Hgood].
    exact (good_grant c s s' w Hgood Hpossible Hgrant).
  - destruct (negb (possible s w)) eqn:Hrefused; [exact Hgood |].
    rewrite negb_false_iff in Hrefused. destruct (closed s); [exact Hgood |].
    pose proof (good_advance s at_ Hgood) as Hlater.
    cbv zeta. destruct (line (advance s at_)); [| exact Hlater].
    destruct (grant_if c (advance s at_) w) as [s' |] eqn:Hgrant; [| exact Hlater].
    apply (good_grant c (advance s at_) s' w Hlater); [| exact Hgrant].
    rewrite (possible_same s (advance s at_) w (proj1 (advance_same s at_))). exact Hrefused.
  - destruct (negb (possible s w)) eqn:Hrefused; [exact Hgood |].
    rewrite negb_false_iff in Hrefused. destruct (closed s); [exact Hgood |].
    split; [exact Hinv |]. unfold line_possible. simpl. rewrite Forall_app. split; [exact Hline |].
    constructor; [exact Hrefused | constructor].
  - apply good_poll. apply good_advance. exact Hgood.
  - split; [exact Hinv |]. unfold line_possible in *. simpl. rewrite Forall_forall in *.
    intros w Hw. rewrite filter_In in Hw. apply Hline. tauto.
  - destruct (forget n (works s)) as [ws |] eqn:Hforget; [| exact Hgood]. split; [| exact Hline].
    unfold invariant in *. simpl. eapply Forall_impl; [| exact Hinv]. intros g Hg.
    eapply kept_forget; eassumption.
  - apply good_complete. exact Hgood.
  - destruct (good_advance s at_ Hgood) as [H1 H2]. split.
    + unfold invariant in *. simpl. rewrite Forall_map. eapply Forall_impl; [| exact H1].
      intros g Hg. apply kept_enter. exact Hg.
    + eapply line_same; [| | exact H2]; [simpl; apply limits_enter | reflexivity].
  - destruct (grace c =? 0); [apply good_complete; exact Hgood |].
    destruct (good_advance s at_ Hgood) as [H1 H2]. split; assumption.
  - simpl. destruct (now s <? until); [split; assumption | exact Hgood].
  - split; assumption.
  - split; assumption.
  - split; [exact Hinv | constructor].
  - split.
    + unfold invariant in *. simpl. apply invariant_merge. exact Hinv.
    + eapply line_same; [| | exact Hline]; [simpl; apply limits_merge | reflexivity].
Qed.

Definition sensible (c : config) : Prop := Forall (fun l => 0 <= rate l) (limits c).

Lemma good_start (c : config) : sensible c -> good (start c).
Proof.
  intros Hsensible. split; [| constructor]. unfold invariant. simpl. rewrite Forall_map.
  eapply Forall_impl; [| exact Hsensible]. intros l Hl. simpl in Hl.
  constructor; simpl; auto; unfold law_at; simpl; intros; lia.
Qed.

(** The invariant holds wherever the machine can get. *)
Theorem the_invariant_is_inductive (c : config) (ops : list op) :
  sensible c -> good (run c ops).
Proof.
  intros Hsensible. unfold run. rewrite <- fold_left_rev_right.
  induction (rev ops) as [| o rest IH]; simpl; [apply good_start; assumption |].
  apply good_step. assumption.
Qed.

(** So the law holds at every instant, past and to come, if no more is granted. *)
Theorem the_law_holds (c : config) (ops : list op) :
  sensible c ->
  forall g t, In g (windows (run c ops)) -> law_at (limit_of g) (works (run c ops)) t.
Proof.
  intros Hsensible g t Hg. destruct (the_invariant_is_inductive c ops Hsensible) as [Hinv _].
  unfold invariant in Hinv. rewrite Forall_forall in Hinv. specialize (Hinv g Hg).
  destruct (Z.le_gt_cases t (now (run c ops))).
  - apply (the_law _ _ _ Hinv). assumption.
  - apply (law_later _ (now (run c ops))); [assumption | lia].
Qed.

(** ** What the server sees *)

(** The server counts a task at some moment of it, each at its own. *)
Definition counts_within (w : work) (moment : Z) : Prop :=
  since w <= moment /\ match phase_of w with Ended e _ => moment <= e | Running => True end.

Definition in_window (l : limit) (x : Z) (seen : work * Z) : Z :=
  if (x <=? snd seen) && (snd seen <=? x + per l) then units l (counted (fst seen)) else 0.

(** No trace of the machine, however long and however strange, and no way for the server to count,
    overflows a window of any limit. *)
Theorem no_reachable_window_overflows (c : config) (ops : list op) :
  sensible c ->
  forall g moments x,
    In g (windows (run c ops)) ->
    Forall2 counts_within (works (run c ops)) moments ->
    sum (in_window (limit_of g) x) (combine (works (run c ops)) moments) <= rate (limit_of g).
Proof.
  intros Hsensible g moments x Hg Hwithin.
  pose proof (the_law_holds c ops Hsensible g (x + per (limit_of g)) Hg) as Hlaw.
  destruct (the_invariant_is_inductive c ops Hsensible) as [Hinv _].
  unfold invariant in Hinv. rewrite Forall_forall in Hinv.
  pose proof (all_sound _ _ _ (Hinv g Hg)) as Hsound.
  eapply Z.le_trans; [| exact Hlaw]. clear Hlaw Hinv Hg.
  induction Hwithin as [| w moment ws moments [Hfrom Huntil] _ IH]; simpl; [lia |].
  inversion Hsound as [| ? ? [_ [_ Hcounted]] Hrest]; subst. specialize (IH Hrest).
  assert (in_window (limit_of g) x (w, moment) <= contribution (limit_of g) (x + per (limit_of g)) w);
    [| lia].
  unfold in_window, contribution. simpl.
  destruct ((x <=? moment) && (moment <=? x + per (limit_of g))) eqn:Hin.
  - rewrite andb_true_iff, !Z.leb_le in Hin.
    assert (held_at (limit_of g) (x + per (limit_of g)) w = true) as ->; [| lia].
    unfold held_at. rewrite andb_true_iff, Z.leb_le. split; [lia |].
    destruct (phase_of w); [reflexivity |]. rewrite Z.leb_le. lia.
  - destruct (held_at (limit_of g) (x + per (limit_of g)) w); lia.
Qed.

Print Assumptions the_invariant_is_inductive.
Print Assumptions the_law_holds.
Print Assumptions no_reachable_window_overflows.
