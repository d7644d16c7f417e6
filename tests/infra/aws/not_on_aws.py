"""Which promises of the provider contract AWS cannot keep, and why: test → reason.

The reasons are those that the provider refuses with, wherever it is one of its verbs that is asked.
What AWS does instead is tested beside this file.
"""

from __future__ import annotations

from infra.aws.limits import REASONS as LIMITS

STUBBED = "no emulator has TestFailover; its request and its answer are tested by a stub"
NO_PROCESS = "AWS runs no process of ours that could be killed"

REASONS = {
    "test_front_doors_count_what_clients_ask_and_how_long_it_took": LIMITS["traffic"],
    "test_a_front_door_that_was_started_again_counts_anew": LIMITS["traffic"],
    "test_a_frozen_primary_is_silent_until_it_is_healed": LIMITS["inject freeze"],
    "test_a_stopped_primary_follows_the_standby_that_got_everything": LIMITS["stop_database"],
    "test_a_killed_primary_comes_back_as_a_standby_of_the_promoted_one": LIMITS["rewind"],
    "test_nothing_starts_in_a_zone_that_is_held_down": LIMITS["inject kill-zone"],
    "test_a_cut_link_ends_replication_between_regions_only": LIMITS["inject cut-link"],
    "test_a_promoted_queue_takes_the_writes": STUBBED,
    "test_events_set_aside_are_listed_and_replayed_or_dropped_once": LIMITS["queues"],
    "test_a_dropped_queue_has_lost_its_contents_and_goes_on": LIMITS["inject drop-queue"],
    "test_only_a_cache_can_lose_a_caches_contents": LIMITS["inject drop-cache"],
    "test_a_killed_store_or_stand_in_is_started_again": NO_PROCESS,
    "test_a_service_gets_a_second_instance_and_loses_it_again": LIMITS["set_instances"],
    "test_a_killed_region_comes_back_empty_and_its_databases_only_as_standbys": (
        "nobody can take a region's APIs away; what clients lose with it is injected instead"
    ),
}
