-- Where the output items of stored responses are, so that a request can refer to one by its id. Responses that were stored
-- before have no rows here: their items are found through `previous_response_id` alone.
CREATE TABLE response_items (
    project_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    response_id TEXT NOT NULL,
    PRIMARY KEY (project_id, item_id, response_id),
    FOREIGN KEY (response_id, project_id) REFERENCES responses (id, project_id) ON DELETE CASCADE
);

CREATE INDEX response_items_by_response ON response_items (response_id, project_id);
