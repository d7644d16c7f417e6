"""The policies of the AWS topology, as an ordinary pack of Pulumi (`pulumi up --policy-pack`).

Only `__main__` imports pulumi. The rules are pure and look at a whole stack, because most of what
they ask for is said by several resources together: a bucket, its public access block, its policy.
"""
