"""Every limit of the protocol and of this server, with its unit, in one place.

Azure's own limits come from the REST pages "Scalability and performance targets for Blob storage", "Put Block",
"Put Blob", "List Blobs", "Set Blob Tags" and "Naming and Referencing Containers, Blobs, and Metadata".
Ours bound what a stranger can make a worker hold.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- requests on the wire (ours; precedents: nginx large_client_header_buffers, IIS maxRequestBytes) ---
request_target_bytes_max: Final = 16 * KIB
request_header_bytes_max: Final = 64 * KIB
request_header_count_max: Final = 200
client_request_id_chars_max: Final = 1024
head_read_seconds_max: Final = 10.0  # a request head that dribbles in is cut off
body_idle_seconds_max: Final = 60.0  # no byte of a body for so long: 408 and close
send_idle_seconds_max: Final = 60.0  # the client takes no byte of an answer for so long: close
keep_alive_seconds_max: Final = 240.0  # AzCopy keeps idle connections 180 s; stay above it
pipelined_requests_max: Final = 16
xml_body_bytes_max: Final = 4 * MIB
xml_depth_max: Final = 8
xml_elements_max: Final = 4096  # in a request body other than a block list; five CORS rules are 30

# --- what one worker holds (ours; an operator may change them) ---
connections_count_max: Final = 4096
data_threads_count: Final = 16  # blocking reads and writes of content, hashing
metadata_threads_count: Final = 8  # opens, stats and listings, where the mount is not local
pool_queue_count_max: Final = 512  # calls that wait for a thread of either kind; one more is answered 503 ServerBusy
waiting_for_room_count_max: Final = 256  # requests that wait until a full disk has room; one more is answered 503
storage_seconds_max: Final = 30.0  # a request waits so long for one call of a mount, then 500 OperationTimedOut
storage_long_seconds_max: Final = 600.0  # the same for what may copy or sync gigabytes in one call

# --- names ---
container_name_chars_min: Final = 3
container_name_chars_max: Final = 63
blob_name_chars_max: Final = 1024
blob_name_segments_max: Final = 254

# --- blobs and blocks ---
block_bytes_max: Final = 4000 * MIB
put_blob_bytes_max: Final = 5000 * MIB
blocks_committed_max: Final = 50_000
blocks_uncommitted_max: Final = 100_000
block_id_bytes_max: Final = 64
block_list_xml_bytes_max: Final = 12 * MIB  # 50,000 ids of 64 bytes in base64, with their elements
uncommitted_seconds_max: Final = 7 * 24 * 3600
range_checksum_bytes_max: Final = 4 * MIB  # x-ms-range-get-content-md5 / -crc64
structured_read_bytes_max: Final = 256 * MIB  # a read with checksums is written out first; clients ask for ranges
copy_from_url_sync_bytes_max: Final = 256 * MIB  # Copy Blob From URL

# --- metadata, tags, policies ---
metadata_bytes_max: Final = 8 * KIB
tags_count_max: Final = 10
tag_key_chars_max: Final = 128
tag_value_chars_max: Final = 256
stored_access_policies_max: Final = 5
policy_id_chars_max: Final = 64
cors_rules_max: Final = 5
cors_rule_bytes_max: Final = 2 * KIB

# --- listings and batches ---
list_results_max: Final = 5000
batch_requests_max: Final = 256
batch_body_bytes_max: Final = 4 * MIB

# --- leases ---
lease_seconds_min: Final = 15
lease_seconds_max: Final = 60
lease_break_seconds_max: Final = 60

# --- authorisation ---
clock_skew_seconds_max: Final = 15 * 60  # Shared Key requests older or newer are refused
sas_token_bytes_max: Final = 8 * KIB

# --- documents and expressions in requests (ours, where Azure has no figure) ---
xml_error_value_chars_max: Final = 256  # of a refused XML value that the error shows
tag_expression_chars_max: Final = 8 * KIB  # `where` and x-ms-if-tags
tag_expression_terms_max: Final = 64  # comparisons in one x-ms-if-tags
tag_expression_depth_max: Final = 16  # nested parentheses in one x-ms-if-tags
find_tags_max: Final = 10  # different tags in one `where`
retention_days_max: Final = 365
service_properties_bytes_max: Final = 64 * KIB
signed_identifiers_bytes_max: Final = 64 * KIB
tags_xml_bytes_max: Final = 64 * KIB
batch_part_header_bytes_max: Final = 16 * KIB
batch_part_header_count_max: Final = 64
batch_requests_at_once_max: Final = 32  # parts of one batch that run side by side
find_scanned_blobs_max: Final = 20_000  # tagged blobs that one page of Find Blobs by Tags looks at
sas_cache_entries_max: Final = 4096  # verified tokens that one worker remembers
sas_permissions_chars_max: Final = 32

# --- connections of a worker (ours) ---
connections_max: Final = 20_000  # per worker; more are answered 503 and closed
accept_backlog_max: Final = 4096
receive_buffer_bytes: Final = 128 * KIB  # shared by all connections of a worker: a head and a small body in one read
pipelined_bytes_max: Final = 64 * KIB  # requests that wait behind the one being answered
body_piece_bytes_min: Final = 256 * KIB  # the first piece of a large body; at least receive_buffer + pipelined bytes
body_piece_bytes_max: Final = MIB  # later ones; a connection holds two
spare_buffers_max: Final = 32  # body buffers of each size kept for the next upload
small_chunk_bytes_max: Final = 64  # of a chunked body; decoding a chunk costs the same however short it is
small_chunks_count_max: Final = 16_384  # in one body; one more is a 400, as its only purpose is to cost time
body_drain_bytes_max: Final = 256 * KIB  # of an unread body, to save the connection; beyond it the connection closes
linger_seconds_max: Final = 5.0  # after a last answer: how long unread input is thrown away, lest a reset eat it
linger_bytes_max: Final = 64 * MIB
drain_idle_seconds: Final = 1.0  # a stopping worker lets a kept-alive connection idle this long before it closes it
tls_handshake_seconds_max: Final = 10.0
tls_shutdown_seconds_max: Final = 30.0  # includes sending what a closing connection still holds
write_buffer_bytes_max: Final = 256 * KIB  # answers that a client does not take; then its next request waits
outbox_answers_max: Final = 16  # answers that wait for each other; the first by so many times 50 us at most
outbox_answer_bytes_max: Final = 64 * KIB + 16 * KIB  # an inline file with its head; longer ones go out at once

# --- file bodies (ours) ---
file_inline_bytes_max: Final = 64 * KIB  # a file body up to here goes out with its head in one write
sendfile_slice_bytes_max: Final = MIB  # per turn of the event loop
sendfile_ahead_bytes: Final = 4 * MIB  # read ahead of a cold transfer
tls_slice_bytes_max: Final = 256 * KIB

# --- writes on their way (ours) ---
commits_in_flight_max: Final = 4096  # jobs on one file system that a worker has handed to its committer
small_body_bytes_max: Final = 128 * KIB  # a blob or block up to here is kept in memory until its group is committed
hash_inline_bytes_max: Final = 32 * KIB  # hashed on the event loop; more goes to a thread

# --- what older versions allow (REST pages "Put Blob", "Put Block", remarks) ---
put_blob_bytes_max_before_2019_12_12: Final = 256 * MIB
put_blob_bytes_max_before_2016_05_31: Final = 64 * MIB
block_bytes_max_before_2019_12_12: Final = 100 * MIB
block_bytes_max_before_2016_05_31: Final = 4 * MIB

# --- rehydration (ours: the bytes are on the mount, so this only keeps the states that Azure's clients wait for) ---
rehydrate_seconds_standard: Final = 60
rehydrate_seconds_high: Final = 10

# --- copies ---
copy_inline_bytes_max: Final = 64 * KIB  # a local source up to here is copied in memory, in one group commit
copy_foreground_bytes_max: Final = 256 * MIB  # Copy Blob of a local source up to here is done when it is answered
copy_piece_bytes_max: Final = 64 * MIB  # of a longer local source: what one thread copies in one go
copies_background_max: Final = 32  # Copy Blob operations that one worker has pending
copy_progress_seconds: Final = 5.0  # how often a pending copy's progress is written down
copy_silence_seconds_max: Final = 120  # a pending copy without progress for so long has lost its worker
copy_source_connect_seconds_max: Final = 10.0
copy_source_idle_seconds_max: Final = 60.0  # no byte from a remote source for so long: the copy fails
copy_source_addresses_max: Final = 16  # of a remote source's name
copy_busy_wait_seconds: Final = 0.5  # a background copy waits so long when the thread pool is full
