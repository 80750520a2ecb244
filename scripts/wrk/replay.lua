-- Sends the requests of a file one after another (crates/simulator/examples/signed_requests.rs makes it) and prints
-- the figures as JSON. For one thread: each would send the whole file.

local file

function init(arguments)
    file = assert(io.open(arguments[1], "rb"))
    file:setvbuf("full", 1024 * 1024)
end

function request()
    local length = file:read(8)
    if not length then
        -- From here on they are repeats; whoever reads the figures sees that there were more requests than the file has.
        file:seek("set")
        length = file:read(8)
    end
    return file:read(tonumber(length))
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        'RESULT {"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed
    ))
end
