-- Load for `wrk`: GETs over a fixed set of blobs, or PUTs that each write a new name.
--
-- Arguments: METHOD PATH_PREFIX QUERY NAMES BODY_BYTES VERSION PAUSE_MS
-- Blob k is PATH_PREFIX followed by k as eight digits, so that every request of a run has the same length.
-- PAUSE_MS is the mean of the random (exponential) pause of a connection before each request, 0 for none.
-- Request strings are made once (GET) or from two constant halves (PUT): the client must not be what we measure.

local threads = 0
local method, names, next_name, ready, head, tail

function setup(thread)
   thread:set("thread_index", threads)
   threads = threads + 1
end

function init(args)
   method, names = args[1], tonumber(args[4])
   local prefix, query = args[2], args[3]
   local headers = { ["Host"] = wrk.headers["Host"], ["x-ms-version"] = args[6] }
   next_name = thread_index * 10000000
   local pause_ms = tonumber(args[7])
   if pause_ms > 0 then -- wrk asks for this function's result where there is one
      math.randomseed(thread_index + 1)
      delay = function() return math.floor(-math.log(1 - math.random()) * pause_ms) end
   end
   if method == "GET" then
      ready = {}
      for k = 0, names - 1 do
         ready[k] = wrk.format("GET", string.format("%s%08d?%s", prefix, k, query), headers)
      end
   else
      headers["x-ms-blob-type"] = "BlockBlob"
      local body = string.rep("0123456789abcdef", math.ceil(args[5] / 16)):sub(1, args[5])
      local whole = wrk.format("PUT", prefix .. "NAMENAME?" .. query, headers, body)
      local at = whole:find("NAMENAME", 1, true)
      head, tail = whole:sub(1, at - 1), whole:sub(at + 8)
   end
end

function request()
   next_name = next_name + 1
   if method == "GET" then
      return ready[next_name % names]
   end
   return head .. string.format("%08d", next_name) .. tail
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      'BENCH {"requests": %d, "elapsed_us": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
      latency:percentile(50), latency:percentile(99)))
end
