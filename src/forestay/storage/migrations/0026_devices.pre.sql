-- The last reading of each device (GPU) of each worker. Owner: fleet.

CREATE TABLE worker_devices (
    worker_id text NOT NULL REFERENCES workers (worker_id) ON DELETE CASCADE,
    uuid      text NOT NULL,
    state     jsonb NOT NULL,                  -- fleet/devices.py DeviceState
    PRIMARY KEY (worker_id, uuid)
);
